package ledger

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestRoundTrip(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	l, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := l.Load(); err != nil || len(s.Pods)+len(s.Enrolled) != 0 {
		t.Fatalf("new: %v, %v", s, err)
	}
	want := State{
		Pods: []Pod{{
			UID: "u1", Name: "a", Namespace: "shop", ServiceAccount: "sa", Netns: "/run/netns/a", Device: 4, Inode: 1<<63 + 1,
			IPs: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}, Phase: Captured,
		}},
		Enrolled: []string{"shop"},
	}
	for range 2 {
		if err := l.Save(want); err != nil {
			t.Fatal(err)
		}
		if got, err := l.Load(); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("files left: %v, %v", entries, err)
	}
	if st, err := os.Stat(filepath.Join(dir, fileName)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}

func TestDamagedFileIsNamed(t *testing.T) {
	for name, content := range map[string]string{
		"cut":            `{"format":1,"pods":[{"uid":"a"`,
		"empty":          ``,
		"another format": `{"format":2}`,
		"no netns":       `{"format":1,"pods":[{"uid":"a","phase":"captured"}]}`,
		"no such phase":  `{"format":1,"pods":[{"uid":"a","netns":"/x","phase":"lost"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, fileName)
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			l, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := l.Load(); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"format":1,"pods":[{"uid":"a","netns":"/x","phase":"draining","ips":["10.0.0.1"]}],"enrolledNamespaces":["a"]}`))
	f.Add([]byte(`{"format":1,"pods":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parse(b)
		if err != nil {
			return
		}
		for _, p := range s.Pods {
			if p.UID == "" || p.Netns == "" {
				t.Errorf("taken: %+v", p)
			}
		}
	})
}
