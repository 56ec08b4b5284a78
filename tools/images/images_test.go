package main

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// project is a module with one program and the specification of its image.
func project(t *testing.T) (root, spec string) {
	t.Helper()
	root = t.TempDir()
	for file, text := range map[string]string{
		"go.mod":         "module example.test/hello\n\ngo 1.26.0\n",
		"cmd/x/main.go":  "package main\n\nfunc main() { println(\"hello\") }\n",
		"images.yaml":    "images:\n- name: hello\n  title: Hello\n  programs:\n    /usr/bin/hello: {package: ./cmd/x}\n    /usr/bin/later: {package: ./cmd/later, optional: true}\n",
		"data/notes.txt": "notes",
	} {
		at := filepath.Join(root, file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return root, filepath.Join(root, "images.yaml")
}

func build(t *testing.T, args ...string) {
	t.Helper()
	cfg, err := parse(args)
	if err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
}

// What is pushed has both platforms, is valid, and is the same when it is built again elsewhere.
func TestBuildAndPush(t *testing.T) {
	reg := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer reg.Close()
	host := strings.TrimPrefix(reg.URL, "http://")
	var digests []string
	for range 2 {
		root, spec := project(t)
		build(t, "-f", spec, "-root", root, "-o", filepath.Join(root, "out"), "-registry", host+"/a", "-tag", "v1", "-push")
		ref, err := name.ParseReference(host + "/a/hello:v1")
		if err != nil {
			t.Fatal(err)
		}
		idx, err := remote.Index(ref)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Index(idx); err != nil {
			t.Error(err)
		}
		d, err := idx.Digest()
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, d.String())
		m, err := idx.IndexManifest()
		if err != nil {
			t.Fatal(err)
		}
		if len(m.Manifests) != 2 || m.Manifests[0].Platform.Architecture != "amd64" || m.Manifests[1].Platform.Architecture != "arm64" {
			t.Errorf("platforms: %+v", m.Manifests)
		}
	}
	if digests[0] != digests[1] {
		t.Errorf("built twice, the digests are %v", digests)
	}
}

// The archive that engines import has a user that is not root, the roots of certificates, the program, and its bill of
// materials.
func TestArchive(t *testing.T) {
	root, spec := project(t)
	out := filepath.Join(root, "out")
	build(t, "-f", spec, "-root", root, "-o", out, "-registry", "reg.test/a", "-platforms", "linux/amd64")
	tag, err := name.NewTag("reg.test/a/hello:dev")
	if err != nil {
		t.Fatal(err)
	}
	img, err := tarball.ImageFromPath(filepath.Join(out, "hello-amd64.tar"), &tag)
	if err != nil {
		t.Fatal(err)
	}
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if c.Config.User != nonroot || len(c.Config.Entrypoint) != 1 || c.Config.Entrypoint[0] != "/usr/bin/hello" || !c.Created.IsZero() {
		t.Errorf("%+v", c)
	}
	files := contents(t, img)
	if !strings.Contains(files["etc/passwd"], "65532") || strings.Count(files["etc/ssl/certs/ca-certificates.crt"], "BEGIN CERTIFICATE") < 50 || len(files["usr/bin/hello"]) < 1<<20 {
		t.Errorf("files: %d", len(files))
	}
	if _, ok := files["usr/bin/later"]; ok {
		t.Error("an optional program that is not there is in the image")
	}
	beside, err := os.ReadFile(filepath.Join(out, "hello-amd64.spdx.json"))
	if err != nil || string(beside) != files["usr/share/sbom/hello.spdx.json"] {
		t.Errorf("the bill beside the image is not the one in it: %v", err)
	}
	var b bill
	if err := json.Unmarshal(beside, &b); err != nil {
		t.Fatal(err)
	}
	if b.Version != "SPDX-2.3" || len(b.Packages) != 2 || b.Packages[1].Name != "stdlib" || b.Packages[1].Version == "" {
		t.Errorf("%+v", b)
	}
}

func contents(t *testing.T, img v1.Image) map[string]string {
	t.Helper()
	r := mutate.Extract(img)
	defer r.Close()
	files := map[string]string{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.ModTime.Unix() > 0 || h.Uid != 0 {
			t.Errorf("%s: time %v, user %d", h.Name, h.ModTime, h.Uid)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = string(b)
	}
}

// What a specification gets wrong is named.
func TestSpec(t *testing.T) {
	for text, want := range map[string]string{
		"images: [{name: a}]":                                        "neither programs nor files",
		"images: [{name: a, files: {x: y}}]":                         `"x" is not a clean absolute path`,
		"images: [{name: a, flies: {/x: y}}]":                        "flies",
		"images: [{name: a, entrypoint: [x], files: {/x: y}}]":       `"x" is not a clean absolute path`,
		"images: [{name: a, files: {/x/../y: y}}]":                   "not a clean absolute path",
		"images: [{name: a, programs: {/x: {package: y, path: z}}}]": "path",
	} {
		file := filepath.Join(t.TempDir(), "images.yaml")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := readSpec(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
