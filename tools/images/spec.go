package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"go.yaml.in/yaml/v3"
)

// Spec lists images.
type Spec struct {
	Images []Image `yaml:"images"`
}

// Image says what is in an image.
type Image struct {
	// Name is the repository: a name that --registry is put before, or one with a registry and a tag of its own.
	Name string `yaml:"name"`
	// Also are further names of the same image.
	Also []string `yaml:"also"`
	// Programs maps paths in the image to the Go packages that are compiled for them.
	Programs map[string]Program `yaml:"programs"`
	// Files maps paths in the image to files, which are taken for every platform. They are relative to the root.
	Files map[string]string `yaml:"files"`
	// Entrypoint is the first program's path if empty.
	Entrypoint []string `yaml:"entrypoint"`
	// User is the numeric user and, after a colon, group; 65532:65532 if empty.
	User string `yaml:"user"`
	// Title and Description become annotations.
	Title       string `yaml:"title"`
	Description string `yaml:"description"`
}

// Program is a package to compile.
type Program struct {
	// Module is the folder of the module, relative to the root; the root itself if empty.
	Module string `yaml:"module"`
	// Package is the package's path within its module (./cmd/x) or an import path.
	Package string `yaml:"package"`
	// Optional leaves the program out where its folder does not exist.
	Optional bool `yaml:"optional"`
}

const nonroot = "65532:65532"

// readSpec reads a specification and judges it; unknown fields are mistakes.
func readSpec(file string) (*Spec, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var s Spec
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&s); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for i := range s.Images {
		if err := s.Images[i].complete(); err != nil {
			return nil, fmt.Errorf("%s: image %q: %w", file, s.Images[i].Name, err)
		}
	}
	return &s, nil
}

// complete fills in defaults and judges the rest.
func (m *Image) complete() error {
	if m.User == "" {
		m.User = nonroot
	}
	if len(m.Programs)+len(m.Files) == 0 {
		return errors.New("neither programs nor files: name at least one")
	}
	for _, p := range slices.Concat(m.paths(), m.Entrypoint[:min(1, len(m.Entrypoint))]) {
		if !path.IsAbs(p) || path.Clean(p) != p {
			return fmt.Errorf("%q is not a clean absolute path", p)
		}
	}
	if len(m.Entrypoint) == 0 {
		m.Entrypoint = m.paths()[:1]
	}
	return nil
}

// paths are those of programs, then of files, each in order.
func (m *Image) paths() []string { return slices.Concat(sorted(m.Programs), sorted(m.Files)) }

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// present leaves out optional programs that are not there.
func (m *Image) present(root string) {
	for p, prog := range m.Programs {
		if _, err := os.Stat(filepath.Join(root, prog.Module, prog.Package)); prog.Optional && errors.Is(err, os.ErrNotExist) {
			delete(m.Programs, p)
		}
	}
}

// short is the name of the image's files.
func (m *Image) short() string {
	base, _, _ := strings.Cut(path.Base(m.Name), ":")
	return base
}

// tags are the image's full names.
func (m *Image) tags(registry, tag string) ([]name.Tag, error) {
	var all []name.Tag
	for _, n := range append([]string{m.Name}, m.Also...) {
		if !strings.Contains(n, "/") && registry != "" {
			n = registry + "/" + n
		}
		if !strings.Contains(path.Base(n), ":") {
			n += ":" + tag
		}
		t, err := name.NewTag(n, name.WithDefaultRegistry("localhost"))
		if err != nil {
			return nil, fmt.Errorf("image %q: %w", m.Name, err)
		}
		all = append(all, t)
	}
	return all, nil
}
