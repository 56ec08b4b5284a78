package cniconf

import (
	"bytes"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
)

const entry = `{"type":"ambit-cni","socket":"/var/run/ambit/cni.sock"}`

const list = `{
  "name": "k8s-pod-network",   "cniVersion": "0.3.1",
	"plugins": [
    {"type": "calico", "mtu": 1.50e3, "x": "\u0041]}", "ipam": {"type": "calico-ipam"} },
    {
      "type":"portmap", "snat": true,"capabilities": {"portMappings": true}}
  ] , "unknown": [1, {"plugins": []}]
}

`

func TestWithAndWithout(t *testing.T) {
	out, changed, err := With([]byte(list), []byte(entry))
	if err != nil || !changed {
		t.Fatal(err, changed)
	}
	parsed, err := libcni.NetworkConfFromBytes(out)
	if err != nil || len(parsed.Plugins) != 3 || parsed.Plugins[2].Network.Type != "ambit-cni" || parsed.Plugins[0].Network.Type != "calico" {
		t.Fatalf("%s: %v", out, err)
	}
	if again, changed, err := With(out, []byte(entry)); err != nil || changed || !bytes.Equal(again, out) {
		t.Errorf("a second time: changed %t, %v", changed, err)
	}
	if !Has(out, "ambit-cni") || Has([]byte(list), "ambit-cni") {
		t.Error("Has is wrong")
	}
	back, changed, err := Without(out, "ambit-cni")
	if err != nil || !changed || string(back) != list {
		t.Errorf("%v; back to\n%s", err, back)
	}
	if same, changed, err := Without(back, "ambit-cni"); err != nil || changed || string(same) != list {
		t.Errorf("without, twice: %v", err)
	}
}

func TestWithReplacesAnotherEntryOfItsType(t *testing.T) {
	for _, old := range []string{
		`{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"a"},{"type":"ambit-cni","socket":"/old"},{"type":"b"}]}`,
		`{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"ambit-cni"} , {"type":"a"},{"type":"b"}]}`,
		`{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"a"},{"type":"b"},` + entry + `,` + entry + `]}`,
	} {
		out, changed, err := With([]byte(old), []byte(entry))
		want := `{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"a"},{"type":"b"},` + entry + `]}`
		if err != nil || !changed || string(out) != want {
			t.Errorf("%s\nbecame %s, %v", old, out, err)
		}
	}
}

func TestRefused(t *testing.T) {
	for text, want := range map[string]string{
		``:                          "JSON",
		`{"name":"n","plugins":[{"`: "JSON",
		`{"cniVersion":"1.0.0","plugins":[{"type":"a"}]}`:                                     "name",
		`{"cniVersion":"1.0.0","name":"n","plugins":[]}`:                                      "plugins",
		`{"cniVersion":"1.0.0","name":"n","plugins":{}}`:                                      "plugins",
		`{"cniVersion":"1.0.0","name":"n"}`:                                                   "plugins",
		`{"cniVersion":"1.0.0","name":"n","plugins":[{"name":"x"}]}`:                          "type",
		`{"cniVersion":"0.2.0","name":"n","plugins":[{"type":"a"}]}`:                          "0.2.0",
		`{"name":"n","plugins":[{"type":"a"}]}`:                                               "0.1.0",
		`{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"a"}],"plugins":[{"type":"b"}]}`: "twice",
		`{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"ambit-cni"}]}`:                  "nothing but",
		`{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"a"}]} {}`:                       "after top-level",
	} {
		if out, _, err := With([]byte(text), []byte(entry)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q gave %q, %v; want an error about %s", text, out, err, want)
		}
	}
}

func TestConvert(t *testing.T) {
	conf := "{\"cniVersion\": \"0.3.1\", \"name\": \"net\",\n \"type\": \"bridge\", \"ipam\": {\"type\": \"host-local\"}}\n"
	out, err := Convert([]byte(conf), []byte(entry), "10-net.conf")
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := libcni.NetworkConfFromBytes(out)
	if err != nil || parsed.Name != "net" || parsed.CNIVersion != "0.3.1" || len(parsed.Plugins) != 2 ||
		parsed.Plugins[0].Network.Type != "bridge" || parsed.Plugins[0].Network.IPAM.Type != "host-local" || parsed.Plugins[1].Network.Type != "ambit-cni" {
		t.Fatalf("%s: %v", out, err)
	}
	if from := ConvertedFrom(out); from != "10-net.conf" {
		t.Errorf("converted from %q", from)
	}
	if from := ConvertedFrom([]byte(list)); from != "" {
		t.Errorf("converted from %q", from)
	}
	if _, changed, err := With(out, []byte(entry)); err != nil || changed {
		t.Errorf("changed %t, %v", changed, err)
	}
	for _, bad := range []string{`{}`, `{"type":"bridge"}`, `{"type":"bridge","name":"n"}`, `{"type":"bridge","name":"n","cniVersion":"0.2.0"}`, `[]`, `{`} {
		if out, err := Convert([]byte(bad), []byte(entry), "x"); err == nil {
			t.Errorf("%s became %s", bad, out)
		}
	}
}

func FuzzWith(f *testing.F) {
	f.Add([]byte(list))
	f.Add([]byte(`{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"ambit-cni"} , {"type":"a"},{"type":"b"}]}`))
	f.Add([]byte(`{"cniVersion":"1.1.0","cniVersions":["0.4.0"],"name":"n","plugins":[{"type":"a","plugins":[{}]}]}`))
	f.Add([]byte(`{"cniVersion": "0.3.1", "name": "net", "type": "bridge"}`))
	f.Add([]byte(``))
	f.Fuzz(func(t *testing.T, text []byte) {
		if conv, err := Convert(text, []byte(entry), "f.conf"); err == nil {
			if _, changed, err := With(conv, []byte(entry)); err != nil || changed {
				t.Errorf("converted to %s: changed %t, %v", conv, changed, err)
			}
		}
		had := Has(text, "ambit-cni")
		out, changed, err := With(text, []byte(entry))
		if err != nil {
			return
		}
		before, err := libcni.NetworkConfFromBytes(text)
		if err != nil {
			t.Fatalf("%q was taken: %v", text, err)
		}
		after, err := libcni.NetworkConfFromBytes(out)
		if err != nil {
			t.Fatalf("%q became %q: %v", text, out, err)
		}
		if after.Name != before.Name || after.CNIVersion != before.CNIVersion || !Has(out, "ambit-cni") {
			t.Errorf("%q became %q", text, out)
		}
		if !changed && !bytes.Equal(out, text) {
			t.Errorf("%q was changed silently to %q", text, out)
		}
		if had {
			return
		}
		back, _, err := Without(out, "ambit-cni")
		if err != nil || !bytes.Equal(back, text) {
			t.Errorf("%q came back as %q, %v", text, back, err)
		}
	})
}
