package provision

import (
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// Ports of a waypoint's pod.
const (
	PortMetrics = 15020
	PortReady   = 15021
)

// Program is what a waypoint's container runs, and Container its name.
const (
	Program   = "ambit-waypoint"
	Container = "waypoint"
)

// SecretsDir is where a waypoint's pod finds its token and the control plane's
// roots.
const (
	SecretsDir = "/run/secrets/ambit"
	TokenFile  = "token"
	RootFile   = "root-cert.pem"
)

// Options are what all waypoints of a mesh have in common.
type Options struct {
	// XDSAddress is host:port of the control plane, and XDSServerName the name in
	// its certificate.
	XDSAddress, XDSServerName string
	ClusterID, TrustDomain    string
	LogLevel                  string
	// Image of the container; none where programs run without images.
	Image string
	// Args are added to the program's arguments.
	Args []string
	// Cluster is what only a cluster needs; nil where there is none.
	Cluster *Cluster
}

// Objects are what a waypoint is made of.
type Objects struct {
	ServiceAccount *corev1.ServiceAccount
	Service        *corev1.Service
	Deployment     *appsv1.Deployment
	// PodDisruptionBudget and HorizontalPodAutoscaler are of clusters, nil where
	// the Gateway needs none.
	PodDisruptionBudget     *policyv1.PodDisruptionBudget
	HorizontalPodAutoscaler *autoscalingv2.HorizontalPodAutoscaler
}

// Make gives the objects of a Gateway that Check found no problem with.
func Make(gw *gatewayv1.Gateway, o Options) Objects {
	out := Objects{
		ServiceAccount: &corev1.ServiceAccount{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"}, ObjectMeta: meta(gw),
		},
		Service: service(gw), Deployment: deployment(gw, o),
	}
	if o.Cluster != nil {
		o.Cluster.complete(gw, &out)
	}
	return out
}

// labelsOf gives the labels that the Gateway's infrastructure asks for, and those by which
// the mesh knows what it has made.
func labelsOf(gw *gatewayv1.Gateway) map[string]string {
	out := make(map[string]string)
	if i := gw.Spec.Infrastructure; i != nil {
		for k, v := range i.Labels {
			out[string(k)] = string(v)
		}
	}
	out[graph.LabelGatewayName] = gw.Name
	out[graph.LabelDataplaneMode] = graph.ModeNone
	return out
}

func annotations(gw *gatewayv1.Gateway) map[string]string {
	var out map[string]string
	if i := gw.Spec.Infrastructure; i != nil {
		for k, v := range i.Annotations {
			if out == nil {
				out = make(map[string]string)
			}
			out[string(k)] = string(v)
		}
	}
	return out
}

func meta(gw *gatewayv1.Gateway) metav1.ObjectMeta {
	m := metav1.ObjectMeta{Namespace: gw.Namespace, Name: gw.Name, Labels: labelsOf(gw), Annotations: annotations(gw)}
	if gw.UID != "" { // not of an implied one
		m.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: gatewayv1.GroupVersion.String(), Kind: "Gateway", Name: gw.Name, UID: gw.UID, Controller: new(true),
		}}
	}
	return m
}

func selector(gw *gatewayv1.Gateway) map[string]string {
	return map[string]string{graph.LabelGatewayName: gw.Name}
}

func service(gw *gatewayv1.Gateway) *corev1.Service {
	port := func(name string, n int32) corev1.ServicePort {
		return corev1.ServicePort{Name: name, Protocol: corev1.ProtocolTCP, Port: n, TargetPort: intstr.FromInt32(n)}
	}
	return &corev1.Service{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: meta(gw),
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, Selector: selector(gw),
			IPFamilyPolicy: new(corev1.IPFamilyPolicyPreferDualStack),
			Ports:          []corev1.ServicePort{port("hbone", graph.WaypointPort), port("status", PortReady)},
		},
	}
}

// graceSeconds is what a waypoint has to end, where its drain time needs no more: long
// requests go on until then.
const graceSeconds = 60

func deployment(gw *gatewayv1.Gateway, o Options) *appsv1.Deployment {
	n, _ := replicas(gw)
	podLabels := labelsOf(gw)
	return &appsv1.Deployment{
		TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}, ObjectMeta: meta(gw),
		Spec: appsv1.DeploymentSpec{
			Replicas: &n, Selector: &metav1.LabelSelector{MatchLabels: selector(gw)},
			// A new one is ready before an old one goes: there is never none.
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{
				MaxSurge: new(intstr.FromInt32(1)), MaxUnavailable: new(intstr.FromInt32(0)),
			}},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: podLabels, Annotations: maps.Clone(annotations(gw))},
				Spec: corev1.PodSpec{
					ServiceAccountName: gw.Name, AutomountServiceAccountToken: new(false), TerminationGracePeriodSeconds: new(grace(gw)),
					RestartPolicy: corev1.RestartPolicyAlways, Containers: []corev1.Container{container(gw, o)},
				},
			},
		},
	}
}

func container(gw *gatewayv1.Gateway, o Options) corev1.Container {
	c := corev1.Container{
		Name: Container, Image: o.Image, Command: []string{Program}, Env: environment(), Resources: resources(gw),
		Args: []string{
			"--gateway=" + gw.Namespace + "/" + gw.Name, "--pod=$(POD_NAME)", "--pod-uid=$(POD_UID)", "--service-account=$(SERVICE_ACCOUNT)", "--node=$(NODE_NAME)",
			"--xds-address=" + o.XDSAddress, "--xds-server-name=" + o.XDSServerName,
			"--xds-root=" + SecretsDir + "/" + RootFile, "--token-file=" + SecretsDir + "/" + TokenFile,
			"--cluster-id=" + o.ClusterID, "--trust-domain=" + o.TrustDomain, "--log-level=" + o.LogLevel, "--log-format=json",
		},
		Ports: []corev1.ContainerPort{
			{Name: "hbone", ContainerPort: graph.WaypointPort, Protocol: corev1.ProtocolTCP},
			// By which it is known that this waypoint takes QUIC.
			{Name: "hbone-quic", ContainerPort: graph.WaypointPort, Protocol: corev1.ProtocolUDP},
			{Name: "metrics", ContainerPort: PortMetrics, Protocol: corev1.ProtocolTCP},
			{Name: "status", ContainerPort: PortReady, Protocol: corev1.ProtocolTCP},
		},
		ReadinessProbe: &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz/ready", Port: intstr.FromInt32(PortReady)}},
			PeriodSeconds: 1, TimeoutSeconds: 2, SuccessThreshold: 1, FailureThreshold: 3,
		},
	}
	// The nearest counts: the last one of a flag does.
	c.Args = append(append(c.Args, o.Args...), bounds(gw)...)
	return c
}

// environment tells the program which pod it is.
func environment() []corev1.EnvVar {
	var out []corev1.EnvVar
	for _, e := range [][2]string{
		{"POD_NAME", "metadata.name"},
		{"POD_NAMESPACE", "metadata.namespace"},
		{"POD_UID", "metadata.uid"},
		{"POD_IP", "status.podIP"},
		{"POD_IPS", "status.podIPs"},
		{"NODE_NAME", "spec.nodeName"},
		{"SERVICE_ACCOUNT", "spec.serviceAccountName"},
	} {
		out = append(out, corev1.EnvVar{Name: e[0], ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: e[1]}}})
	}
	return out
}
