package manifest

import (
	"strings"
	"testing"
	"time"
)

// FuzzParse looks for content that crashes, hangs, or is refused without a
// reason, and for objects that a consumer could not rely on.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c}]}\n",
		"apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Namespace, metadata: {name: x}}]\n",
		"--- {a: &a {b: 1}, <<: *a}\n...\n%YAML 1.1\n---\n? [x]\n: y\n",
		"apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 0x50, targetPort: yes}]}\n",
		"{\"apiVersion\":\"discovery.k8s.io/v1\",\"kind\":\"EndpointSlice\",\"metadata\":{\"name\":\"e\"},\"addressType\":\"IPv4\",\"endpoints\":[{\"addresses\":[\"1.2.3.4\"]}]}",
		"a: !!bool x\nb: !!int y\nc: !!float .nan\nd: !!null z\ne: 2020-01-01\n",
		"a: &a [*a]\n", "a: &", "\xff\xfe", "...", "---", "--- |\n  x\n---y\n",
	} {
		f.Add("f.yaml", seed)
		f.Add("f.json", seed)
	}
	scheme := NewScheme()
	f.Fuzz(func(t *testing.T, name, content string) {
		if len(content) > 1<<14 {
			return
		}
		start := time.Now()
		objects, problems := Parse(scheme, name, []byte(content))
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("%d bytes took %s", len(content), took)
		}
		lines := 1 + strings.Count(content, "\n")
		for _, p := range problems {
			if p.Message == "" || p.Position.Line < 1 || p.Position.Line > lines {
				t.Errorf("problem without a reason or outside of the file: %+v", p)
			}
		}
		for _, o := range objects {
			if o.GetName() == "" || o.Key().Kind == "" || o.GetUID() == "" || o.Source.Line < 1 {
				t.Errorf("object that cannot be named: %+v", o)
			}
			if !clusterScoped(o.Key().Kind) && o.GetNamespace() == "" {
				t.Errorf("object without a namespace: %+v", o)
			}
			if at := o.At("metadata.labels"); at.Line < 1 || at.Line > lines {
				t.Errorf("field outside of the file: %s", at)
			}
		}
	})
}
