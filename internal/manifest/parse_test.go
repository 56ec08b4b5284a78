package manifest

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

func parse(name, content string) ([]Object, []Problem) {
	return Parse(NewScheme(), name, []byte(content))
}

// TestProblems states, for each way to get a manifest wrong, the whole message.
func TestProblems(t *testing.T) {
	const pod = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n  namespace: shop\n"
	for name, tc := range map[string]struct{ content, want string }{
		"unknown field": {
			pod + "spec:\n  containers:\n  - name: c\n    ports:\n    - containerPort: 80\n      protcol: TCP\n",
			"f.yaml:11: Pod shop/web: spec.containers[0].ports[0].protcol: unknown field: correct its spelling and place, or remove it",
		},
		"duplicate field": {
			pod + "spec:\n  nodeName: a\n  containers: []\n  nodeName: b\n",
			"f.yaml:9: Pod shop/web: spec.nodeName: duplicate field, already set on line 7 of the document: keep one",
		},
		"wrong type": {
			pod + "spec:\n  containers:\n  - name: c\n    ports:\n    - containerPort: eighty\n",
			"f.yaml:10: Pod shop/web: spec.containers[0].ports[0].containerPort: got string, want int32",
		},
		"wrong type that decodes itself": {
			"apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  ports:\n  - port: 80\n  - name: x\n    port: 81\n    targetPort: [81]\n",
			"f.yaml:9: Service web: spec.ports[1].targetPort: got array, want int32",
		},
		"quantity": {
			pod + "spec:\n  containers:\n  - name: c\n    resources:\n      limits:\n        cpu: 1\n        memory: much\n",
			"f.yaml:12: Pod shop/web: spec.containers[0].resources.limits.memory: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
		},
		"unknown field of a policy": {
			"# shop\napiVersion: ambit-mesh.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: x, namespace: shop}\nspec:\n  action: ALLOW\n  rules:\n  - from: []\n",
			"f.yaml:8: AuthorizationPolicy shop/x: spec.rules[0].from: unknown field: correct its spelling and place, or remove it",
		},
		"wrong type of a label": {
			"apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n  labels:\n    app: web\n    a.b/c: 1\nspec: {containers: [{name: c}]}\n",
			"f.yaml:7: Pod web: metadata.labels.a.b/c: got number, want string",
		},
		"wrong type of the name": {
			"apiVersion: v1\nkind: Pod\nmetadata:\n  namespace: shop\n  name: [web]\n",
			"f.yaml:5: Pod shop/: metadata.name: got array, want string",
		},
		"wrong shape": {
			pod + "spec:\n  containers:\n    name: c\n",
			"f.yaml:7: Pod shop/web: spec.containers: got object, want a list",
		},
		"bad value": {
			"---\n# a comment\n---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  ports:\n  - port: 70000\n",
			"f.yaml:9: Service web: spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
		},
		"address": {
			pod + "spec: {containers: [{name: c}]}\nstatus:\n  podIP: 10.0.0.300\n",
			"f.yaml:8: Pod shop/web: status.podIPs[0].ip: Invalid value: \"10.0.0.300\": must be an IPv4 or IPv6 address such as 10.0.0.1 or fd00::1",
		},
		"no name": {
			"apiVersion: v1\nkind: Pod\nmetadata: {generateName: x}\nspec: {containers: [{name: c}]}\n",
			"f.yaml:3: Pod: metadata.name: Required value: a name, because generateName needs an API server",
		},
		"namespace of a cluster kind": {
			"apiVersion: v1\nkind: Node\nmetadata: {name: n1, namespace: x}\n",
			"f.yaml:3: Node x/n1: metadata.namespace: Forbidden: a Node is in no namespace: remove the field",
		},
		"other version": {
			"apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: HTTPRoute\nmetadata: {name: r}\n",
			"f.yaml:2: HTTPRoute r: kind: kind \"HTTPRoute\" is not known in apiVersion \"gateway.networking.k8s.io/v1alpha2\": write apiVersion: gateway.networking.k8s.io/v1",
		},
		"no kind": {
			"metadata: {name: r}\n",
			"f.yaml:1: r: apiVersion and kind must be set: every document is one Kubernetes object",
		},
		"not an object": {
			"- a\n- b\n",
			"f.yaml:1: got array, want a mapping",
		},
		"syntax": {
			"---\napiVersion: v1\nkind: [Pod\n",
			"f.yaml:3: not valid YAML: did not find expected ',' or ']'",
		},
		"tag": {
			"apiVersion: !include x\nkind: Pod\n",
			"f.yaml:1: Pod: apiVersion: tag \"!include\" has no meaning in a manifest: remove it",
		},
		"selector": {
			"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec:\n  selector: {matchLabels: {app: x}}\n  template:\n    metadata:\n      labels: {app: y}\n    spec: {containers: [{name: c}]}\n",
			"f.yaml:8: Deployment d: spec.template.metadata.labels: Invalid value: \"app=y\": must match spec.selector, which must not be empty",
		},
	} {
		t.Run(name, func(t *testing.T) {
			objs, problems := parse("f.yaml", tc.content)
			if len(objs) != 0 {
				t.Errorf("the object was taken all the same: %v", objs[0].Key())
			}
			if len(problems) != 1 {
				t.Fatalf("%d problems, want 1: %v", len(problems), problems)
			}
			if got := problems[0].Error(); got != tc.want {
				t.Errorf("problem\n got %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestUnknownKindListsWhatIsKnown(t *testing.T) {
	_, problems := parse("f.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n")
	if len(problems) != 1 || !strings.Contains(problems[0].Message, "AuthorizationPolicy, BackendTLSPolicy, CircuitBreakerPolicy, ConfigMap, Deployment") {
		t.Errorf("problems %v do not list the known kinds", problems)
	}
}

func TestGoodDocumentsOfABadFileAreTaken(t *testing.T) {
	objs, problems := parse("f.yaml",
		"apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\nkind: X\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: b}\n")
	if len(objs) != 2 || len(problems) != 1 {
		t.Fatalf("%d objects and %d problems, want 2 and 1", len(objs), len(problems))
	}
	if got := objs[1].Source.String(); got != "f.yaml:7" {
		t.Errorf("the second object is at %s, want f.yaml:7", got)
	}
}

func TestDefaults(t *testing.T) {
	objs, problems := parse("f.yaml", `
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.0.0.1, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {a: b}}
  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, ports: [{containerPort: 80}]}]}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, uid: given}
spec: {containers: [{name: c}]}
status: {podIP: 10.1.0.1}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
`)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	svc := objs[0].Resource.(*corev1.Service)
	if svc.Namespace != "default" || svc.Spec.Ports[0].Protocol != "TCP" || svc.Spec.Ports[0].TargetPort.IntValue() != 80 ||
		svc.Spec.ClusterIPs[0] != "10.0.0.1" || len(svc.UID) != 36 {
		t.Errorf("service %+v", svc)
	}
	dep := objs[1].Resource.(*appsv1.Deployment)
	if *dep.Spec.Replicas != 1 || dep.Spec.Template.Spec.Containers[0].Ports[0].Protocol != "TCP" {
		t.Errorf("deployment %+v", dep.Spec)
	}
	pod := objs[2].Resource.(*corev1.Pod)
	if pod.UID != "given" || pod.Spec.ServiceAccountName != "default" || pod.Status.PodIPs[0].IP != "10.1.0.1" {
		t.Errorf("pod %+v", pod)
	}
	if ns := objs[3]; ns.GetNamespace() != "" || ns.GetLabels()["kubernetes.io/metadata.name"] != "shop" {
		t.Errorf("namespace %+v", ns)
	}
}

func TestFormsOfYAML(t *testing.T) {
	for name, content := range map[string]string{
		"list":            "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Namespace\n  metadata: {name: a, labels: {x: y}}\n",
		"marker and text": "--- {apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {x: y}}}\n",
		"directive":       "%YAML 1.2\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {x: y}}\n...\n# end\n",
		"alias and merge": "apiVersion: v1\nkind: Namespace\nmetadata:\n  annotations: &m {x: y}\n  labels: {<<: *m}\n  name: a\n",
		"carriage return": "apiVersion: v1\r\nkind: Namespace\r\nmetadata: {name: a, labels: {x: y}}\r\n---\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			objs, problems := parse("f.yaml", content)
			if len(problems) > 0 || len(objs) != 1 || objs[0].GetName() != "a" || objs[0].GetLabels()["x"] != "y" {
				t.Errorf("objects %v, problems %v", objs, problems)
			}
		})
	}
}

func TestJSON(t *testing.T) {
	objs, problems := parse("f.json", "{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\n\t\"metadata\":{\"name\":\"a\",\"annotations\":{\"x\":\"\\ud83d\\ude00\"}}}\n"+
		"{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\n\"metadata\":{\"name\":\"b\",\n\"nam\":1}}\n")
	if len(objs) != 1 || objs[0].GetAnnotations()["x"] != "😀" {
		t.Errorf("objects %v", objs)
	}
	if want := "f.json:5: Namespace b: metadata.nam: unknown field: correct its spelling and place, or remove it"; len(problems) != 1 || problems[0].Error() != want {
		t.Errorf("problems %v, want %s", problems, want)
	}
	_, problems = parse("f.json", "{\"a\":\n [1,}")
	if len(problems) != 1 || problems[0].Position.Line != 2 {
		t.Errorf("problems %v, want one on line 2", problems)
	}
}

// TestExpansionIsBounded has documents that are small and mean a lot.
func TestExpansionIsBounded(t *testing.T) {
	laughs, merges := "a0: &a0 [x]\n", "m0: &m0 {k0: x}\n"
	for i := 1; i < 30; i++ {
		p, n := string(rune('A'+i)), string(rune('A'+i-1))
		if i == 1 {
			laughs, merges = "A: &A [x,x]\n", "A: &A {k: x}\n"
		}
		laughs += p + ": &" + p + " [*" + n + ",*" + n + ",*" + n + ",*" + n + "]\n"
		merges += p + ": &" + p + " {<<: [*" + n + ",*" + n + ",*" + n + ",*" + n + "]}\n"
		if i == 24 {
			break
		}
	}
	for name, content := range map[string]string{
		"aliases": laughs, "merges": merges, "depth": strings.Repeat("[", 2000) + strings.Repeat("]", 2000),
		"cycle": "a: &a [*a]\n",
	} {
		if _, problems := parse("f.yaml", content); len(problems) != 1 {
			t.Errorf("%s: problems %v, want one", name, problems)
		}
	}
	if _, problems := parse("f.json", strings.Repeat("[", 2000)); len(problems) != 1 {
		t.Errorf("deep JSON: problems %v, want one", problems)
	}
}

// Objects of versions that Gateway API had before are read as what they are now.
func TestOlderVersions(t *testing.T) {
	for kind, versions := range map[string][]string{
		"HTTPRoute": {"v1beta1"}, "GRPCRoute": {"v1alpha2"}, "TCPRoute": {"v1alpha2"}, "TLSRoute": {"v1alpha2", "v1alpha3"},
	} {
		for _, v := range versions {
			text := "apiVersion: gateway.networking.k8s.io/" + v + "\nkind: " + kind + "\nmetadata: {name: r, namespace: shop}\n" +
				"spec: {parentRefs: [{group: \"\", kind: Service, name: cart}], rules: [{backendRefs: [{name: cart, port: 80}]}]}\n"
			objects, problems := Parse(NewScheme(), "f.yaml", []byte(text))
			if len(problems) > 0 || len(objects) != 1 {
				t.Errorf("%s %s: %v", kind, v, problems)
				continue
			}
			if got := objects[0].Resource.GetObjectKind().GroupVersionKind().String(); got != "gateway.networking.k8s.io/v1, Kind="+kind {
				t.Errorf("%s %s is read as %s", kind, v, got)
			}
		}
	}
}
