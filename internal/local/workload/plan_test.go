package workload_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ambit-mesh/ambit/internal/local/workload"
	"github.com/ambit-mesh/ambit/internal/manifest"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func deployment(replicas int32, version string, change ...func(*appsv1.Deployment)) manifest.Object {
	d := &appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Command: []string{"web", version}}}},
			},
		},
	}
	for _, c := range change {
		c(d)
	}
	return manifest.Object{Resource: d}
}

func owner(t *testing.T, o manifest.Object) *workload.Owner {
	t.Helper()
	own, ok := workload.OwnerOf(o)
	if !ok {
		t.Fatalf("%s owns no pods", o.Key())
	}
	return own
}

// pods writes existing pods as "name:state...", where n is of the new template,
// o of the old one, r is ready and x is going away.
func pods(own *workload.Owner, list string) []workload.Existing {
	var all []workload.Existing
	for i, word := range strings.Fields(list) {
		name, flags, _ := strings.Cut(word, ":")
		e := workload.Existing{
			UID: types.UID(name), Name: name, Owner: own.Key, Hash: own.Hash, Created: epoch.Add(time.Duration(i) * time.Second),
			Ready: strings.Contains(flags, "r"), Terminating: strings.Contains(flags, "x"), Finished: strings.Contains(flags, "f"),
		}
		if strings.Contains(flags, "o") {
			e.Hash = "old"
		}
		all = append(all, e)
	}
	return all
}

func describe(actions []workload.Action) string {
	var words []string
	for _, a := range actions {
		if a.Owner != nil {
			words = append(words, "+"+a.Name)
		} else {
			words = append(words, "-"+string(a.Delete))
		}
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

func TestPlanDeployment(t *testing.T) {
	recreate := func(d *appsv1.Deployment) { d.Spec.Strategy.Type = appsv1.RecreateDeploymentStrategyType }
	noSurge := func(d *appsv1.Deployment) {
		d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{
			MaxSurge: new(intstr.FromInt32(0)), MaxUnavailable: new(intstr.FromInt32(1)),
		}
	}
	for _, tc := range []struct {
		name     string
		replicas int32
		change   []func(*appsv1.Deployment)
		have     string
		want     string
	}{
		{"first start", 3, nil, "", "+ + +"},
		{"nothing to do", 2, nil, "a:nr b:nr", ""},
		{"one is gone", 2, nil, "a:nr b:nrx", "+"},
		{"scale up", 3, nil, "a:nr", "+ +"},
		{"scale down takes the one that is not ready", 1, nil, "a:nr b:n", "-b"},
		{"scale down takes the youngest", 1, nil, "a:nr b:nr", "-b"},
		{"scale to nothing", 0, nil, "a:nr b:nr", "-a -b"},
		{"update begins with one more", 2, nil, "a:or b:or", "+"},
		{"update waits for the new one", 2, nil, "a:or b:or c:n", ""},
		{"update goes on once it is ready", 2, nil, "a:or b:or c:nr", "-b"},
		{"update: the next new one", 2, nil, "a:or b:orx c:nr", "+"},
		{"update: the last old one", 2, nil, "a:or c:nr d:nr", "-a"},
		{"update replaces what is not ready at once", 2, nil, "a:or b:o", "+ -b"},
		{"update without surge", 2, []func(*appsv1.Deployment){noSurge}, "a:or b:or", "-b"},
		{"recreate ends the old ones first", 2, []func(*appsv1.Deployment){recreate}, "a:or b:or", "-a -b"},
		{"recreate waits until they are gone", 2, []func(*appsv1.Deployment){recreate}, "a:orx", ""},
		{"recreate starts the new ones", 2, []func(*appsv1.Deployment){recreate}, "", "+ +"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			own := owner(t, deployment(tc.replicas, "v1", tc.change...))
			if got := describe(workload.Plan([]*workload.Owner{own}, pods(own, tc.have))); got != tc.want {
				t.Errorf("have %q: planned %q, want %q", tc.have, got, tc.want)
			}
		})
	}
}

func TestPlanStatefulSet(t *testing.T) {
	set := func(replicas int32, parallel bool) manifest.Object {
		s := &appsv1.StatefulSet{
			TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "StatefulSet"},
			ObjectMeta: metav1.ObjectMeta{Name: "db", Namespace: "shop"},
			Spec:       appsv1.StatefulSetSpec{Replicas: &replicas, ServiceName: "db"},
		}
		if parallel {
			s.Spec.PodManagementPolicy = appsv1.ParallelPodManagement
		}
		return manifest.Object{Resource: s}
	}
	for _, tc := range []struct {
		name     string
		replicas int32
		parallel bool
		have     string
		want     string
	}{
		{"the first alone", 3, false, "", "+db-0"},
		{"all at once", 3, true, "", "+db-0 +db-1 +db-2"},
		{"waits for the one before", 3, false, "db-0:n", ""},
		{"the next", 3, false, "db-0:nr", "+db-1"},
		{"a name is used again when it is free", 2, false, "db-0:nr db-1:nrx", ""},
		{"scale down", 1, false, "db-0:nr db-1:nr", "-db-1"},
		{"update from the last", 2, false, "db-0:or db-1:or", "-db-1"},
		{"update goes on when all are ready", 2, false, "db-0:or db-1:nr", "-db-0"},
		{"update waits", 2, false, "db-0:or db-1:n", ""},
		{"update replaces a broken one", 2, false, "db-0:or db-1:o", "-db-1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			own := owner(t, set(tc.replicas, tc.parallel))
			if got := describe(workload.Plan([]*workload.Owner{own}, pods(own, tc.have))); got != tc.want {
				t.Errorf("have %q: planned %q, want %q", tc.have, got, tc.want)
			}
		})
	}
}

func barePod(command string) manifest.Object {
	return manifest.Object{Resource: &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: "job", Namespace: "shop", Labels: map[string]string{"a": "1"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Command: []string{command}}}},
	}}
}

func TestPlanBarePod(t *testing.T) {
	own := owner(t, barePod("true"))
	for have, want := range map[string]string{
		"": "+job", "job:nr": "", "job:f": "", "job:or": "-job", "job:orx": "",
	} {
		if got := describe(workload.Plan([]*workload.Owner{own}, pods(own, have))); got != want {
			t.Errorf("have %q: planned %q, want %q", have, got, want)
		}
	}
}

func TestPlanDeletesWhatNobodyOwns(t *testing.T) {
	own := owner(t, barePod("true"))
	if got := describe(workload.Plan(nil, pods(own, "a:nr b:x"))); got != "-a" {
		t.Errorf("planned %q, want -a", got)
	}
}

func TestRelabelKeepsTheProgram(t *testing.T) {
	before := owner(t, barePod("true"))
	p := workload.Action{Owner: before, Name: "job"}.Build("u", "", metav1.Now())
	edited := barePod("true")
	edited.SetLabels(map[string]string{"a": "2"})
	after := owner(t, edited)
	if before.Hash != after.Hash {
		t.Error("a label of a bare pod restarts it")
	}
	if !after.Relabel(p) || p.Labels["a"] != "2" || after.Relabel(p) {
		t.Errorf("labels %v are not those of the manifest", p.Labels)
	}
}

func TestBuildDeploymentPod(t *testing.T) {
	own := owner(t, deployment(1, "v1"))
	p := workload.Action{Owner: own}.Build("u", "abcde", metav1.Now())
	if want := fmt.Sprintf("web-%s-abcde", own.Hash); p.Name != want || p.Namespace != "shop" {
		t.Errorf("name %s/%s, want shop/%s", p.Namespace, p.Name, want)
	}
	if p.Labels["pod-template-hash"] != own.Hash || p.Labels["app"] != "web" {
		t.Errorf("labels %v", p.Labels)
	}
	if len(p.OwnerReferences) != 1 || p.OwnerReferences[0].Kind != "ReplicaSet" || p.OwnerReferences[0].Name != "web-"+own.Hash {
		t.Errorf("owners %v", p.OwnerReferences)
	}
	if p.Spec.ServiceAccountName != "default" {
		t.Errorf("service account %q", p.Spec.ServiceAccountName)
	}
	if other := owner(t, deployment(1, "v2")); other.Hash == own.Hash {
		t.Error("another template has the same hash")
	}
	if scaled := owner(t, deployment(5, "v1")); scaled.Hash != own.Hash {
		t.Error("scaling changes the template's hash")
	}
}

func TestSchedule(t *testing.T) {
	var nodes []*corev1.Node
	for _, n := range []string{"n1", "n2"} {
		nodes = append(nodes, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n, Labels: map[string]string{corev1.LabelHostname: n}}})
	}
	web := manifest.Key{Kind: "Deployment", Name: "web"}
	on := func(node string, k manifest.Key) workload.Existing { return workload.Existing{Node: node, Owner: k} }
	for _, tc := range []struct {
		name     string
		spec     corev1.PodSpec
		existing []workload.Existing
		want     string
		err      string
	}{
		{"empty nodes", corev1.PodSpec{}, nil, "n1", ""},
		{"away from its kin", corev1.PodSpec{}, []workload.Existing{on("n1", web)}, "n2", ""},
		{"kin count before others", corev1.PodSpec{}, []workload.Existing{on("n1", web), on("n2", manifest.Key{}), on("n2", manifest.Key{})}, "n2", ""},
		{"to the emptier node", corev1.PodSpec{}, []workload.Existing{on("n1", manifest.Key{})}, "n2", ""},
		{"by name", corev1.PodSpec{NodeName: "n1"}, []workload.Existing{on("n1", web)}, "n1", ""},
		{"by selector", corev1.PodSpec{NodeSelector: map[string]string{corev1.LabelHostname: "n2"}}, nil, "n2", ""},
		{"no such node", corev1.PodSpec{NodeName: "n9"}, nil, "", `spec.nodeName: there is no node "n9"`},
		{"no node has the label", corev1.PodSpec{NodeSelector: map[string]string{"disk": "ssd"}}, nil, "", "spec.nodeSelector: no node has the labels disk=ssd"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := workload.Schedule(&corev1.Pod{Spec: tc.spec}, web, nodes, tc.existing)
			if got != tc.want || (err == nil) != (tc.err == "") || err != nil && !strings.HasPrefix(err.Error(), tc.err) {
				t.Errorf("got %q, %v; want %q, %q", got, err, tc.want, tc.err)
			}
		})
	}
}

func TestCheckNamesObjectAndField(t *testing.T) {
	spec := corev1.PodSpec{
		Volumes:         []corev1.Volume{{Name: "v"}},
		SecurityContext: &corev1.PodSecurityContext{RunAsUser: new(int64(7))},
		Containers: []corev1.Container{{
			Name:           "c",
			Env:            []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}}}, {Name: "B", ValueFrom: &corev1.EnvVarSource{}}},
			EnvFrom:        []corev1.EnvFromSource{{}},
			ReadinessProbe: &corev1.Probe{},
		}},
	}
	o := barePod("")
	o.Source = manifest.Position{File: "a.yaml", Line: 3}
	fatal, notes := workload.Check(o, &spec, "spec", true)
	var lines []string
	for _, p := range append(fatal, notes...) {
		lines = append(lines, p.Error())
	}
	text := strings.Join(lines, "\n")
	for _, want := range []string{
		"a.yaml:3: Pod shop/job: spec.containers[0].command: required",
		`spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: "metadata.labels": want one of`,
		"spec.containers[0].env[1].valueFrom: only fieldRef",
		"spec.containers[0].envFrom: ",
		"spec.containers[0].readinessProbe: needs one of",
		"spec.volumes: ",
		"spec.securityContext: without root",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("missing %q in:\n%s", want, text)
		}
	}
	if len(fatal) != 5 || len(notes) != 2 {
		t.Errorf("%d fatal and %d notes, want 5 and 2", len(fatal), len(notes))
	}
}
