package nodes

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// FuzzTokenExpiry: no text of a stranger crashes, and nobody is asked about one that
// is not for the mesh or does not end.
func FuzzTokenExpiry(f *testing.F) {
	token := func(claims string) string {
		return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
	}
	f.Add(token(`{"aud":["ambit-mesh.io"],"exp":1000000}`))
	f.Add(token(`{"aud":"ambit-mesh.io","exp":1e12}`))
	f.Add(token(`{"aud":["api"],"exp":1000000}`))
	f.Add(token(`{"aud":["ambit-mesh.io"],"exp":-1}`))
	f.Add(token(`{"aud":{},"exp":"soon"}`))
	f.Add("..")
	f.Add("secret")
	f.Fuzz(func(t *testing.T, token string) {
		end, refusal := tokenExpiry(token)
		if refusal != "" {
			if !end.IsZero() || strings.Contains(refusal, token) && len(token) > 20 {
				t.Fatalf("%v, %q", end, refusal)
			}
			return
		}
		parts := strings.Split(token, ".")
		body, err := base64.RawURLEncoding.DecodeString(parts[1])
		var claims map[string]json.RawMessage
		if len(parts) != 3 || err != nil || json.Unmarshal(body, &claims) != nil {
			t.Fatalf("taken for a token: %q", token)
		}
		if end.Before(time.Unix(0, 0)) || end.Unix() > 1<<40 {
			t.Fatalf("it ends at %v", end)
		}
	})
}
