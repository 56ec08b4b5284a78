package manifest

import (
	"os"
	"testing"
)

const policyYAML = `# the shop's
--- # first
apiVersion: ambit-mesh.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: x, namespace: shop}
spec:
  action: ALLOW
  rules:
  - name: a
  - name: b
    networkAttributes:
      ports: [1,
        2]
`

// TestAt asks for the lines of fields, there or not, in every form of a file.
func TestAt(t *testing.T) {
	const list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Namespace\n  metadata: {name: a}\n- apiVersion: v1\n  kind: Service\n" +
		"  metadata:\n    name: b\n    labels: {x.y/z: w}\n  spec:\n    clusterIP: 10.0.0.1\n    ports: [{port: 80}]\n"
	const aliases = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels: &l\n    x: y\n  annotations: *l\nspec:\n  containers:\n  - &c\n    name: c\n" +
		"    image: i\n  - <<: *c\n    name: d\n"
	const values = "{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\n\"metadata\":{\"name\":\"a\"}}\n\n{\n\"apiVersion\":\"v1\",\n\"kind\":\"Namespace\",\n\"metadata\":{\n\"name\":\"b\"}}\n"
	for name, tc := range map[string]struct {
		file, content string
		object        int
		lines         map[string]int
	}{
		"document": {"f.yaml", policyYAML, 0, map[string]int{
			"": 3, "metadata.name": 5, "spec": 6, "spec.action": 7, "spec.rules[1]": 10, "spec.rules[1].networkAttributes.ports[1]": 13,
			"spec.rules[1].sources": 10, "spec.rules[7].name": 8, "spec.targetRefs": 6, "status": 3,
		}},
		"list":    {"f.yaml", list, 1, map[string]int{"": 7, "spec.clusterIPs[0]": 13, "spec.ports[0].port": 14, "metadata.labels[x.y/z]": 11}},
		"aliases": {"f.yaml", aliases, 0, map[string]int{"spec.containers[1].image": 12, "spec.containers[1].name": 14, "metadata.annotations.x": 6}},
		"JSON":    {"f.json", values, 1, map[string]int{"": 4, "kind": 6, "metadata.name": 8, "spec": 4}},
	} {
		t.Run(name, func(t *testing.T) {
			objs, problems := parse(tc.file, tc.content)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			for field, want := range tc.lines {
				if got := objs[tc.object].At(field); got.File != tc.file || got.Line != want {
					t.Errorf("%q is at %s, want line %d", field, got, want)
				}
			}
		})
	}
}

// TestAtFollowsEdits moves fields without changing them.
func TestAtFollowsEdits(t *testing.T) {
	tr := newTree(t, "a.yaml", policyYAML)
	f := follow(t, tr.dir)
	key := Key{Group: "ambit-mesh.io", Kind: "AuthorizationPolicy", Namespace: "shop", Name: "x"}
	before := f.objects[key]
	tr.replace("a.yaml", "# another line\n"+policyYAML[:len(policyYAML)-len("      ports: [1,\n        2]\n")]+"      # and one\n      ports: [1, 2]\n")
	f.take()
	now := f.objects[key]
	if now.Resource != before.Resource {
		t.Error("the object changed")
	}
	if got := now.At("spec.rules[1].networkAttributes.ports"); got.Line != 14 || now.Source.Line != 4 {
		t.Errorf("the field is at %s, want line 14; the object at %s, want line 4", got, now.Source)
	}
}

// TestRewrittenFileChangesNothing has a file whose objects are all parsed again.
func TestRewrittenFileChangesNothing(t *testing.T) {
	tr := newTree(t, "a.json", `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"a"}}`)
	v, err := open([]string{tr.dir}, false, NewScheme())
	if err != nil {
		t.Fatal(err)
	}
	v.settle(v.scanAll(func(string) error { return nil }))
	content, err := os.ReadFile(tr.path("a.json"))
	if err != nil {
		t.Fatal(err)
	}
	tr.write("a.json", string(content)+"\n")
	keys := v.replace(0, []touch{{tr.path("a.json"), v.layers[0].refresh(tr.path("a.json"), true)}})
	if batch, changed := v.settle(keys); changed {
		t.Errorf("batch %+v", batch)
	}
}
