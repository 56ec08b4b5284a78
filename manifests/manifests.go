// Package manifests holds what is applied to a cluster: the Helm chart and the
// generated CRDs, which are part of it. It leaves rendering and applying to others.
package manifests

import (
	"embed"
	"io/fs"
	"path"
	"strings"
)

// The link charts/ambit/files/crds, by which a Helm that reads the folder finds the
// CRDs, is not embedded: the CRDs are, once.
//
//go:embed all:charts/ambit crds
var files embed.FS

// Chart gives the files of the chart by their paths in it.
func Chart() (map[string][]byte, error) {
	out := make(map[string][]byte)
	for from, to := range map[string]string{"charts/ambit": "", "crds": "files/crds"} {
		err := fs.WalkDir(files, from, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			out[path.Join(to, strings.TrimPrefix(name, from))], err = files.ReadFile(name)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	for name, text := range out {
		if rel := strings.TrimPrefix(name, "/"); rel != name {
			delete(out, name)
			out[rel] = text
		}
	}
	return out, nil
}
