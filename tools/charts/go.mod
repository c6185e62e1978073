// The add-ons whose charts are rendered by tests. Nothing is compiled from them, so their own dependencies are not
// resolved: they are downloaded by name, and checked against go.sum.
module tools/charts

go 1.27

require (
	github.com/cert-manager/cert-manager v1.21.2
	github.com/external-secrets/external-secrets v1.3.2
	knative.dev/operator v0.48.1
	sigs.k8s.io/external-dns v0.23.0
	sigs.k8s.io/metrics-server v0.9.0
)
