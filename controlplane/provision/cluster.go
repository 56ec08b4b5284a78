package provision

import (
	"maps"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// LabelManagedBy is, with ManagedBy, on everything that a control plane makes in
// a cluster. What lacks it is somebody else's and is never changed.
const (
	LabelManagedBy = "app.kubernetes.io/managed-by"
	ManagedBy      = "ambit-mesh.io"
)

// tokenSeconds is how long a token is good for. The kubelet renews it well before.
const tokenSeconds = 3600

// secretsVolume is the volume that is mounted at SecretsDir.
const secretsVolume = "ambit"

// userID is who a waypoint's program runs as, nobody that owns anything.
const userID = 65532

// Cluster is what the pods of a cluster need.
type Cluster struct {
	// TokenAudience is for whom the pods' tokens are made, and RootConfigMap the
	// ConfigMap of their namespace with the control plane's roots, key RootFile.
	TokenAudience, RootConfigMap string
	// PriorityClass of the pods; none when empty.
	PriorityClass string
	// PullPolicy of the image; the cluster's default when empty.
	PullPolicy corev1.PullPolicy
}

// complete adds what a waypoint in a cluster is made of.
func (c *Cluster) complete(gw *gatewayv1.Gateway, o *Objects) {
	c.pod(gw, &o.Deployment.Spec.Template.Spec)
	least, _ := replicas(gw)
	most, target, _ := scaling(gw)
	if most > 0 {
		o.HorizontalPodAutoscaler = autoscaler(gw, least, most, target)
		o.Deployment.Spec.Replicas = nil
	}
	if least > 1 {
		o.PodDisruptionBudget = budget(gw)
	}
	for _, obj := range o.All() {
		l := maps.Clone(obj.GetLabels()) // a Deployment's pods are not labelled so
		l[LabelManagedBy] = ManagedBy
		obj.SetLabels(l)
	}
}

// pod adds credentials, spreads the pods, and leaves them no privilege: the
// program reads two files, listens above port 1024 and writes nothing.
func (c *Cluster) pod(gw *gatewayv1.Gateway, p *corev1.PodSpec) {
	p.PriorityClassName = c.PriorityClass
	p.SecurityContext = &corev1.PodSecurityContext{
		RunAsNonRoot: new(true), RunAsUser: new(int64(userID)), RunAsGroup: new(int64(userID)), FSGroup: new(int64(userID)),
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	p.TopologySpreadConstraints = nil
	for _, key := range []string{corev1.LabelTopologyZone, corev1.LabelHostname} {
		p.TopologySpreadConstraints = append(p.TopologySpreadConstraints, corev1.TopologySpreadConstraint{
			MaxSkew: 1, TopologyKey: key, WhenUnsatisfiable: corev1.ScheduleAnyway, LabelSelector: &metav1.LabelSelector{MatchLabels: selector(gw)},
		})
	}
	p.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
		PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{Weight: 100, PodAffinityTerm: corev1.PodAffinityTerm{
			TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: selector(gw)},
		}}},
	}}
	p.Volumes = []corev1.Volume{{Name: secretsVolume, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		DefaultMode: new(int32(0o440)),
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: c.TokenAudience, ExpirationSeconds: new(int64(tokenSeconds)), Path: TokenFile}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: c.RootConfigMap}, Items: []corev1.KeyToPath{{Key: RootFile, Path: RootFile}},
			}},
		},
	}}}}
	container := &p.Containers[0]
	container.Args = append(container.Args, "--shutdown-delay="+strconv.Itoa(delaySeconds)+"s")
	container.ImagePullPolicy = c.PullPolicy
	container.VolumeMounts = []corev1.VolumeMount{{Name: secretsVolume, MountPath: SecretsDir, ReadOnly: true}}
	container.SecurityContext = &corev1.SecurityContext{
		AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
}

func budget(gw *gatewayv1.Gateway) *policyv1.PodDisruptionBudget {
	return &policyv1.PodDisruptionBudget{
		TypeMeta: metav1.TypeMeta{APIVersion: policyv1.SchemeGroupVersion.String(), Kind: "PodDisruptionBudget"}, ObjectMeta: meta(gw),
		Spec: policyv1.PodDisruptionBudgetSpec{
			MaxUnavailable: new(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{MatchLabels: selector(gw)},
			// One that is broken anyway does not keep a node from being drained.
			UnhealthyPodEvictionPolicy: new(policyv1.AlwaysAllow),
		},
	}
}

func autoscaler(gw *gatewayv1.Gateway, least, most, target int32) *autoscalingv2.HorizontalPodAutoscaler {
	return &autoscalingv2.HorizontalPodAutoscaler{
		TypeMeta: metav1.TypeMeta{APIVersion: autoscalingv2.SchemeGroupVersion.String(), Kind: "HorizontalPodAutoscaler"}, ObjectMeta: meta(gw),
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: appsv1.SchemeGroupVersion.String(), Kind: "Deployment", Name: gw.Name},
			MinReplicas:    &least, MaxReplicas: most,
			Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
				Name: corev1.ResourceCPU, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &target},
			}}},
		},
	}
}

// All gives the objects that there are, in the order in which they are made.
func (o *Objects) All() []graph.Object {
	out := []graph.Object{o.ServiceAccount, o.Service}
	if o.PodDisruptionBudget != nil {
		out = append(out, o.PodDisruptionBudget)
	}
	out = append(out, o.Deployment)
	if o.HorizontalPodAutoscaler != nil {
		out = append(out, o.HorizontalPodAutoscaler)
	}
	return out
}
