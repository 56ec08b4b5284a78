package jwt

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestClaims(t *testing.T) {
	c, err := parseClaims([]byte(`{
		"iss": "i", "sub": "s", "aud": ["a", "b"], "scope": "read  write", "name": "two words", "n": 1e3, "big": 12345678901234567890, "yes": true, "no": false, "null": null,
		"list": ["x", 1, null, {"y": 1}, ["z"]], "empty": [],
		"realm": {"roles": ["r1", "r2"], "deep": {"er": "d"}, "obj": {}},
		"https://x.example/roles": ["ns"], "a.b": "direct", "a": {"b": "nested", "b.c": "low"}, "a.b.c": {}, "a.b.x": "1"
	}`))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]string{
		"iss": {"i"}, "aud": {"a", "b"}, "scope": {"read", "write"}, "name": {"two words"}, "n": {"1e3"}, "big": {"12345678901234567890"}, "yes": {"true"}, "no": {"false"},
		"list": {"x", "1"}, "empty": {}, "realm.roles": {"r1", "r2"}, "realm.deep.er": {"d"}, "https://x.example/roles": {"ns"}, "a.b": {"direct"}, "a.b.c": {"low"},
		"null": nil, "realm": nil, "realm.obj": nil, "realm.none": nil, "": nil, "ISS": nil,
	} {
		if diff := cmp.Diff(want, c.Values(name)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	var none *Claims
	if none.Values("sub") != nil || none.Principal() != "" || none.Issuer() != "" || none.Subject() != "" {
		t.Error("no claims")
	}
}

// A claim is never left out for being one too many.
func TestTooManyClaims(t *testing.T) {
	var b strings.Builder
	for i := range maxClaims + 1 {
		fmt.Fprintf(&b, `,"c%d":1`, i)
	}
	for name, raw := range map[string]string{
		"many":  `{` + b.String()[1:] + `}`,
		"large": `{"a":"` + strings.Repeat("x", maxClaimBytes) + `"}`,
		// Each has the long name before its own.
		"names": `{"` + strings.Repeat("x", 4000) + `":{` + b.String()[1:600] + `}}`,
	} {
		if _, err := parseClaims([]byte(raw)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
