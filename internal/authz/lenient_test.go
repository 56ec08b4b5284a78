package authz

import "testing"

// A path that applications read in two ways has to be allowed in both.
func TestTwofoldPaths(t *testing.T) {
	for path, want := range map[string]string{
		"/a//b": "/a/b", "//a": "/a", "/a/b;v=1/c": "/a/b/c", "/a/..;/b": "/b", "/;/": "/", "/a;x/": "/a/",
	} {
		if !twofold(path) || lenient(path) != want {
			t.Errorf("%q: %v, %q, want %q", path, twofold(path), lenient(path), want)
		}
	}
	for _, path := range []string{"/", "/a/b", "/a/b/", "/a:b"} {
		if twofold(path) {
			t.Errorf("%q has one reading", path)
		}
	}
}
