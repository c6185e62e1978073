// The modules whose OpenAPI and CRDs become the schemas of scripts/validate.py. Nothing is compiled from them, so
// their own dependencies are not resolved: they are downloaded by name, and checked against go.sum.
module tools/schemas

go 1.27

require (
	k8s.io/kubernetes v1.36.4
	github.com/kserve/kserve v0.20.0
	github.com/argoproj/argo-cd/v3 v3.6.1
	knative.dev/operator v0.48.1
	github.com/cert-manager/cert-manager v1.21.2
	github.com/external-secrets/external-secrets v1.3.2
)
