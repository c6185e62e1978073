// Asks of objects what an API server of the pinned version asks before it stores them, by the server's own code: the
// validation of the built-in kinds, and for what makes pods the admission of limit ranges and quotas.
//
// Requests and answers are values of JSON, on standard input and output; an answer is a line.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	genericrequest "k8s.io/apiserver/pkg/endpoints/request"
	quota "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	_ "k8s.io/kubernetes/pkg/apis/autoscaling/install"
	_ "k8s.io/kubernetes/pkg/apis/batch/install"
	_ "k8s.io/kubernetes/pkg/apis/coordination/install"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	_ "k8s.io/kubernetes/pkg/apis/networking/install"
	_ "k8s.io/kubernetes/pkg/apis/policy/install"
	_ "k8s.io/kubernetes/pkg/apis/rbac/install"
	_ "k8s.io/kubernetes/pkg/apis/scheduling/install"
	_ "k8s.io/kubernetes/pkg/apis/storage/install"
	"k8s.io/kubernetes/pkg/capabilities"
	evaluators "k8s.io/kubernetes/pkg/quota/v1/evaluator/core"
	"k8s.io/kubernetes/pkg/registry/apps/daemonset"
	"k8s.io/kubernetes/pkg/registry/apps/deployment"
	"k8s.io/kubernetes/pkg/registry/apps/replicaset"
	"k8s.io/kubernetes/pkg/registry/apps/statefulset"
	"k8s.io/kubernetes/pkg/registry/autoscaling/horizontalpodautoscaler"
	"k8s.io/kubernetes/pkg/registry/batch/cronjob"
	"k8s.io/kubernetes/pkg/registry/batch/job"
	"k8s.io/kubernetes/pkg/registry/coordination/lease"
	"k8s.io/kubernetes/pkg/registry/core/configmap"
	"k8s.io/kubernetes/pkg/registry/core/limitrange"
	"k8s.io/kubernetes/pkg/registry/core/namespace"
	"k8s.io/kubernetes/pkg/registry/core/persistentvolume"
	"k8s.io/kubernetes/pkg/registry/core/persistentvolumeclaim"
	"k8s.io/kubernetes/pkg/registry/core/pod"
	"k8s.io/kubernetes/pkg/registry/core/podtemplate"
	"k8s.io/kubernetes/pkg/registry/core/replicationcontroller"
	"k8s.io/kubernetes/pkg/registry/core/resourcequota"
	"k8s.io/kubernetes/pkg/registry/core/secret"
	"k8s.io/kubernetes/pkg/registry/core/service"
	"k8s.io/kubernetes/pkg/registry/core/serviceaccount"
	"k8s.io/kubernetes/pkg/registry/networking/ingress"
	"k8s.io/kubernetes/pkg/registry/networking/ingressclass"
	"k8s.io/kubernetes/pkg/registry/networking/networkpolicy"
	"k8s.io/kubernetes/pkg/registry/policy/poddisruptionbudget"
	"k8s.io/kubernetes/pkg/registry/rbac/clusterrole"
	"k8s.io/kubernetes/pkg/registry/rbac/clusterrolebinding"
	"k8s.io/kubernetes/pkg/registry/rbac/role"
	"k8s.io/kubernetes/pkg/registry/rbac/rolebinding"
	"k8s.io/kubernetes/pkg/registry/scheduling/priorityclass"
	"k8s.io/kubernetes/pkg/registry/storage/storageclass"
	"k8s.io/kubernetes/plugin/pkg/admission/limitranger"
	"k8s.io/utils/clock"
)

type request struct {
	// What is created, each on its own, in a namespace that has these LimitRanges and ResourceQuotas.
	Objects []asked           `json:"objects"`
	Limits  []json.RawMessage `json:"limits"`
	Quotas  []json.RawMessage `json:"quotas"`
}

type asked struct {
	Object json.RawMessage `json:"object"`
	// How often it is created, at the least.
	Count int64 `json:"count"`
}

type answer struct {
	// One for each object.
	Results []result `json:"results"`
}

type result struct {
	Faults []fault `json:"faults"`
}

type fault struct {
	Field string `json:"field"`
	Words string `json:"words"`
}

// strategies has the server's checks of each kind, as k8s.io/kubernetes/pkg/registry/*/rest installs it.
var strategies = map[string]rest.RESTCreateStrategy{
	"ClusterRole.rbac.authorization.k8s.io":        clusterrole.Strategy,
	"ClusterRoleBinding.rbac.authorization.k8s.io": clusterrolebinding.Strategy,
	"ConfigMap":                             configmap.Strategy,
	"CronJob.batch":                         cronjob.Strategy,
	"DaemonSet.apps":                        daemonset.Strategy,
	"Deployment.apps":                       deployment.Strategy,
	"HorizontalPodAutoscaler.autoscaling":   horizontalpodautoscaler.Strategy,
	"Ingress.networking.k8s.io":             ingress.Strategy,
	"IngressClass.networking.k8s.io":        ingressclass.Strategy,
	"Job.batch":                             job.Strategy,
	"Lease.coordination.k8s.io":             lease.Strategy,
	"LimitRange":                            limitrange.Strategy,
	"Namespace":                             namespace.Strategy,
	"NetworkPolicy.networking.k8s.io":       networkpolicy.Strategy,
	"PersistentVolume":                      persistentvolume.Strategy,
	"PersistentVolumeClaim":                 persistentvolumeclaim.Strategy,
	"Pod":                                   pod.Strategy,
	"PodDisruptionBudget.policy":            poddisruptionbudget.Strategy,
	"PodTemplate":                           podtemplate.Strategy,
	"PriorityClass.scheduling.k8s.io":       priorityclass.Strategy,
	"ReplicaSet.apps":                       replicaset.Strategy,
	"ReplicationController":                 replicationcontroller.Strategy,
	"ResourceQuota":                         resourcequota.Strategy,
	"Role.rbac.authorization.k8s.io":        role.Strategy,
	"RoleBinding.rbac.authorization.k8s.io": rolebinding.Strategy,
	"Secret":                                secret.Strategy,
	"Service":                               service.Strategy,
	"ServiceAccount":                        serviceaccount.Strategy,
	"StatefulSet.apps":                      statefulset.Strategy,
	"StorageClass.storage.k8s.io":           storageclass.Strategy,
}

func main() {
	// Whether a cluster lets any container be privileged is its own setting.
	capabilities.Setup(true, 0)
	in := json.NewDecoder(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	for {
		var asked request
		if err := in.Decode(&asked); err == io.EOF {
			return
		} else if err != nil {
			log.Fatal(err)
		}
		limits, quotas := read[corev1.LimitRange](asked.Limits), read[corev1.ResourceQuota](asked.Quotas)
		given := answer{Results: make([]result, len(asked.Objects))}
		for number, object := range asked.Objects {
			given.Results[number] = judge(object, limits, quotas)
		}
		if err := out.Encode(given); err != nil {
			log.Fatal(err)
		}
	}
}

// read gives what can be read; the server would never have taken the others.
func read[T any](texts []json.RawMessage) (found []T) {
	for _, text := range texts {
		var one T
		if json.Unmarshal(text, &one) == nil {
			found = append(found, one)
		}
	}
	return found
}

func judge(given asked, limits []corev1.LimitRange, quotas []corev1.ResourceQuota) result {
	object, kind, err := legacyscheme.Codecs.UniversalDecoder().Decode(given.Object, nil, nil)
	if runtime.IsNotRegisteredError(err) {
		return result{}
	}
	if err == nil {
		err = errors.Join(limit(object, limits)...)
	}
	if err == nil {
		err = create(object, *kind)
	}
	if err == nil {
		err = errors.Join(append(limited(object, limits), counted(object, given.Count, quotas)...)...)
	}
	return result{Faults: faults(err)}
}

// create does what the server does before it stores a new object.
func create(object runtime.Object, kind schema.GroupVersionKind) error {
	strategy := strategies[kind.GroupKind().String()]
	if strategy == nil {
		return fmt.Errorf("%s: of a built-in kind that tools/validation/main.go does not list", kind.GroupKind())
	}
	accessor, err := meta.Accessor(object)
	if err != nil {
		return err
	}
	rest.FillObjectMetaSystemFields(accessor)
	// As normalizeClusterIPs does, before the strategy of Services is asked.
	if made, is := object.(*core.Service); is && made.Spec.ClusterIP != "" && len(made.Spec.ClusterIPs) == 0 {
		made.Spec.ClusterIPs = []string{made.Spec.ClusterIP}
	}
	ctx := genericrequest.WithNamespace(context.Background(), accessor.GetNamespace())
	ctx = genericrequest.WithRequestInfo(ctx, &genericrequest.RequestInfo{
		IsResourceRequest: true, Verb: "create", APIGroup: kind.Group, APIVersion: kind.Version,
	})
	return rest.BeforeCreate(strategy, ctx, object)
}

// limit sets what the LimitRanges give to containers without requests.
func limit(object runtime.Object, limits []corev1.LimitRange) (failed []error) {
	if made, is := object.(*core.Pod); is {
		for number := range limits {
			failed = append(failed, limitranger.PodMutateLimitFunc(&limits[number], made))
		}
	}
	return failed
}

// limited compares with what the LimitRanges allow.
func limited(object runtime.Object, limits []corev1.LimitRange) (failed []error) {
	for number := range limits {
		switch made := object.(type) {
		case *core.Pod:
			failed = append(failed, limitranger.PodValidateLimitFunc(&limits[number], made))
		case *core.PersistentVolumeClaim:
			failed = append(failed, limitranger.PersistentVolumeClaimValidateLimitFunc(&limits[number], made))
		}
	}
	return failed
}

// counted compares with what the quotas leave while there is nothing else.
func counted(object runtime.Object, count int64, limits []corev1.ResourceQuota) (failed []error) {
	var evaluator quota.Evaluator
	// They list nothing: what there is already is not asked.
	switch object.(type) {
	case *core.Pod:
		evaluator = evaluators.NewPodEvaluator(nil, clock.RealClock{})
	case *core.PersistentVolumeClaim:
		evaluator = evaluators.NewPersistentVolumeClaimEvaluator(nil)
	case *core.Service:
		evaluator = evaluators.NewServiceEvaluator(nil)
	default:
		return nil
	}
	used, err := evaluator.Usage(object)
	if err != nil {
		return []error{err}
	}
	for number := range limits {
		limit := &limits[number]
		// In a cluster its controller has copied it.
		limit.Status.Hard = limit.Spec.Hard
		if matches, err := evaluator.Matches(limit, object); err != nil || !matches {
			failed = append(failed, err)
			continue
		}
		hard := evaluator.MatchingResources(quota.ResourceNames(limit.Spec.Hard))
		if err := evaluator.Constraints(hard, object); err != nil {
			failed = append(failed, fmt.Errorf("ResourceQuota %s: %w", limit.Name, err))
		}
		for _, name := range sets.List(sets.New(hard...)) {
			failed = append(failed, compared(name, used[name], count, limit))
		}
	}
	return failed
}

func compared(name corev1.ResourceName, used resource.Quantity, count int64, limit *corev1.ResourceQuota) error {
	all := resource.NewMilliQuantity(used.MilliValue()*count, used.Format)
	if allowed := limit.Spec.Hard[name]; all.Cmp(allowed) > 0 {
		return fmt.Errorf("ResourceQuota %s: %s: %d × %s is more than %s", limit.Name, name, count, used.String(), allowed.String())
	}
	return nil
}

// faults takes an error of the server apart.
func faults(err error) []fault {
	if err == nil {
		return nil
	}
	var status apierrors.APIStatus
	if errors.As(err, &status) && status.Status().Details != nil && len(status.Status().Details.Causes) > 0 {
		var found []fault
		for _, cause := range status.Status().Details.Causes {
			found = append(found, fault{cause.Field, cause.Message})
		}
		return found
	}
	var found []fault
	for _, line := range strings.Split(err.Error(), "\n") {
		found = append(found, fault{"", line})
	}
	return found
}
