package snapshot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/anypb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const typeURL = "type.googleapis.com/istio.workload.Address"

func resource(name, version string) *discoveryv3.Resource {
	return &discoveryv3.Resource{Name: name, Version: version, Resource: &anypb.Any{TypeUrl: typeURL, Value: []byte(name + version)}}
}

func newKeeper(t *testing.T, path string, heard time.Time, edit func(*Config)) *Keeper {
	t.Helper()
	cfg := Config{Path: path, Cluster: "c", TrustDomain: "td", Node: "n1", Heard: func() time.Time { return heard }}
	if edit != nil {
		edit(&cfg)
	}
	k, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if k.base != nil {
			k.base.Close()
		}
	})
	return k
}

func names(list []*discoveryv3.Resource) string {
	var out []string
	for _, r := range list {
		out = append(out, r.GetName()+"@"+r.GetVersion())
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// What one process saves, the next finds; changes add up, also over what another
// process has put in the same place.
func TestSaveAndLoad(t *testing.T) {
	path, now := filepath.Join(t.TempDir(), "n1", "mesh.snapshot"), time.Now()
	first := newKeeper(t, path, now, nil)
	if _, _, err := first.Load(now); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	first.Record(typeURL, []*discoveryv3.Resource{resource("a", "1"), resource("b", "1")}, nil)
	first.save()
	second := newKeeper(t, path, now, nil)
	h, all, err := second.Load(now.Add(time.Hour))
	if err != nil || names(all) != "a@1 b@1" || !h.Heard.Equal(now) {
		t.Fatal(names(all), h, err)
	}
	// Both live for a while, as a ztunnel and its successor do.
	second.Record(typeURL, []*discoveryv3.Resource{resource("c", "1")}, []string{"a"})
	second.save()
	first.Record(typeURL, []*discoveryv3.Resource{resource("b", "2")}, nil)
	first.save()
	second.Record(typeURL, nil, []string{"b"})
	second.save()
	_, all, err = newKeeper(t, path, now, nil).Load(now)
	if err != nil || names(all) != "c@1" {
		t.Fatal(names(all), err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); len(left) > 0 {
		t.Error(left)
	}
}

func TestRunSavesAtItsEnd(t *testing.T) {
	path, now := filepath.Join(t.TempDir(), "mesh.snapshot"), time.Now()
	k := newKeeper(t, path, now, nil)
	k.Record(typeURL, []*discoveryv3.Resource{resource("a", "1")}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := k.Run(ctx); err != nil {
		t.Fatal(err)
	}
	k.base = nil
	if _, all, err := newKeeper(t, path, now, nil).Load(now); err != nil || names(all) != "a@1" {
		t.Error(names(all), err)
	}
}

func TestNothingIsSavedBeforeTheControlPlaneWasHeard(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mesh.snapshot")
	k := newKeeper(t, path, time.Time{}, nil)
	k.Record(typeURL, []*discoveryv3.Resource{resource("a", "1")}, nil)
	k.save()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestRefused(t *testing.T) {
	now := time.Now()
	good := func(t *testing.T, path string) []byte {
		k := newKeeper(t, path, now, nil)
		k.Record(typeURL, []*discoveryv3.Resource{resource("a", "1"), resource("b", "1")}, nil)
		k.save()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, tc := range map[string]struct {
		damage func(b []byte) []byte
		edit   func(*Config)
		later  time.Duration
		want   error
	}{
		"cut short":            {damage: func(b []byte) []byte { return b[:len(b)-1] }, want: ErrCorrupt},
		"one bit":              {damage: func(b []byte) []byte { b[len(b)/2] ^= 1; return b }, want: ErrCorrupt},
		"bytes after its end":  {damage: func(b []byte) []byte { return append(b, 0) }, want: ErrCorrupt},
		"empty":                {damage: func([]byte) []byte { return nil }, want: ErrCorrupt},
		"format of tomorrow":   {damage: func(b []byte) []byte { b[len(magic)+3] = 2; return b }, want: ErrFormat},
		"another cluster":      {edit: func(c *Config) { c.Cluster = "other" }, want: ErrForeign},
		"another trust domain": {edit: func(c *Config) { c.TrustDomain = "other" }, want: ErrForeign},
		"another node":         {edit: func(c *Config) { c.Node = "n2" }, want: ErrForeign},
		"too old":              {later: 25 * time.Hour, want: ErrTooOld},
		"old, but allowed":     {later: 25 * time.Hour, edit: func(c *Config) { c.MaxAge = 26 * time.Hour }},
		"from the future":      {later: -time.Hour, want: ErrCorrupt},
		"too large":            {edit: func(c *Config) { c.MaxSize = 10 }, want: ErrTooBig},
		"good":                 {},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "mesh.snapshot")
			b := good(t, path)
			if tc.damage != nil {
				if err := os.WriteFile(path, tc.damage(b), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			_, all, err := newKeeper(t, path, now, tc.edit).Load(now.Add(tc.later))
			if !errors.Is(err, tc.want) {
				t.Errorf("%v, want %v", err, tc.want)
			}
			if tc.want != nil && all != nil {
				t.Errorf("%s given beside %v", names(all), err)
			}
		})
	}
	t.Run("open to others", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "mesh.snapshot")
		good(t, path)
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, _, err := newKeeper(t, path, now, nil).Load(now); !errors.Is(err, ErrCorrupt) {
			t.Error(err)
		}
	})
	t.Run("a link", func(t *testing.T) {
		dir := t.TempDir()
		good(t, filepath.Join(dir, "real"))
		if err := os.Symlink(filepath.Join(dir, "real"), filepath.Join(dir, "mesh.snapshot")); err != nil {
			t.Fatal(err)
		}
		if _, _, err := newKeeper(t, filepath.Join(dir, "mesh.snapshot"), now, nil).Load(now); err == nil {
			t.Error("followed")
		}
	})
}

func TestTooLargeIsNotSaved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mesh.snapshot")
	k := newKeeper(t, path, time.Now(), func(c *Config) { c.MaxSize = 2000 })
	var many []*discoveryv3.Resource
	for i := range 100 {
		many = append(many, resource(fmt.Sprintf("r%d", i), "1"))
	}
	k.Record(typeURL, many, nil)
	k.save()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if len(k.pending) != 100 {
		t.Errorf("%d changes are remembered for the next time", len(k.pending))
	}
}

// FuzzDecode: whatever a file holds, it is read as a whole or refused, and what is
// read can be written again.
func FuzzDecode(f *testing.F) {
	var b bytes.Buffer
	if _, err := encode(&b, Header{"c", "td", "n", time.Unix(1, 0)}, nil, map[key]*discoveryv3.Resource{{typeURL, "a"}: resource("a", "1")}, 1<<20); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes(), false)
	f.Add(b.Bytes()[:len(b.Bytes())-40], true)
	f.Add([]byte(magic), true)
	f.Fuzz(func(t *testing.T, b []byte, seal bool) {
		if seal {
			// The parser behind the checksum is fuzzed too.
			b = sealed(b)
		}
		h, all, err := decode(b)
		if err != nil {
			if all != nil {
				t.Fatal("a part is given beside an error")
			}
			return
		}
		var again bytes.Buffer
		if _, err := encode(&again, h, all, nil, 1<<30); err != nil {
			t.Fatal(err)
		}
		if _, twice, err := decode(again.Bytes()); err != nil || names(twice) != names(all) {
			t.Fatal(err)
		}
	})
}

// sealed gives b the beginning and the checksum of a snapshot.
func sealed(b []byte) []byte {
	out := append([]byte(magic), 0, 0, 0, format)
	out = append(out, b...)
	sum := sha256.Sum256(out)
	return append(out, sum[:]...)
}
