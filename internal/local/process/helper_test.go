package process

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFind(t *testing.T) {
	dir, path := t.TempDir(), t.TempDir()
	write := func(name string, mode os.FileMode) string {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, nil, mode)); err != nil {
			t.Fatal(err)
		}
		return name
	}
	inPath := write(filepath.Join(path, "both"), 0o700)
	write(filepath.Join(dir, "both"), 0o700)
	inDir := write(filepath.Join(dir, "mine"), 0o700)
	below := write(filepath.Join(dir, "bin", "tool"), 0o700)
	write(filepath.Join(path, "data"), 0o600)
	for _, tc := range []struct{ name, want, err string }{
		{"both", inPath, ""},
		{"mine", inDir, ""},
		{"bin/tool", below, ""},
		{"./mine", inDir, ""},
		{inDir, inDir, ""},
		{"data", "", `"data" is neither in PATH`},
		{filepath.Join(path, "data"), "", "is not executable"},
		{"none", "", `"none" is neither in PATH`},
		{"./none", "", "does not exist"},
		{dir, "", "is a directory"},
	} {
		got, err := find(tc.name, dir, "relative:"+path)
		if tc.err == "" && (err != nil || got != tc.want) {
			t.Errorf("%s: %q, %v; want %q", tc.name, got, err, tc.want)
		}
		if tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.err)
		}
	}
}

func TestLookupTakesTheLast(t *testing.T) {
	env := []string{"A=1", "PATH=/a", "PATHX=/x", "PATH=/b=c", "B"}
	for name, want := range map[string]string{"PATH": "/b=c", "A": "1", "B": "", "NONE": ""} {
		if got := Lookup(env, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}
