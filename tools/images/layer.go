package main

import (
	"archive/tar"
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// entry is one regular file of a layer: its content, or the file that holds it.
type entry struct {
	path    string
	mode    int64
	content []byte
	from    string
}

const (
	passwd = "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n"
	group  = "root:x:0:\nnonroot:x:65532:\n"
)

// standard are the files that every image has: who there is and, as a Go program finds them by itself, the roots of
// public certificates.
func standard() []entry {
	return []entry{
		{path: "/etc/passwd", mode: 0o644, content: []byte(passwd)},
		{path: "/etc/group", mode: 0o644, content: []byte(group)},
		{path: "/etc/ssl/certs/ca-certificates.crt", mode: 0o644, content: roots()},
	}
}

// roots are those that are trusted without conditions: a file of certificates has no place for conditions.
func roots() []byte {
	var out bytes.Buffer
	for r := range bundle.Roots() {
		if r.Constraint == nil {
			out.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate}))
		}
	}
	return out.Bytes()
}

// layer is a layer with the entries in the order of their paths, all of root, without times.
func layer(entries []entry) (v1.Layer, error) {
	text, err := archive(entries)
	if err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil })
}

func archive(entries []entry) ([]byte, error) {
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.path, b.path) })
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	made := map[string]bool{"/": true}
	if err := mkdir(w, made, "/tmp", 0o1777); err != nil {
		return nil, err
	}
	for _, e := range entries {
		if err := add(w, made, e); err != nil {
			return nil, fmt.Errorf("layer: %s: %w", e.path, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func add(w *tar.Writer, made map[string]bool, e entry) error {
	if e.from != "" {
		b, err := os.ReadFile(e.from)
		if err != nil {
			return err
		}
		e.content = b
	}
	if err := mkdir(w, made, path.Dir(e.path), 0o755); err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: e.path[1:], Mode: e.mode, Size: int64(len(e.content))}); err != nil {
		return err
	}
	_, err := w.Write(e.content)
	return err
}

// mkdir adds a folder, and those above it, once.
func mkdir(w *tar.Writer, made map[string]bool, dir string, mode int64) error {
	if made[dir] {
		return nil
	}
	if err := mkdir(w, made, path.Dir(dir), 0o755); err != nil {
		return err
	}
	made[dir] = true
	return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir[1:] + "/", Mode: mode})
}
