package main

import (
	"context"
	"fmt"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// built is one image for one platform, with its bill of materials.
type built struct {
	platform v1.Platform
	image    v1.Image
	sbom     []byte
}

// assemble builds an image for a platform.
func assemble(ctx context.Context, c compiler, m Image, on v1.Platform) (built, error) {
	files := map[string]string{}
	for _, at := range sorted(m.Programs) {
		file, err := c.build(ctx, m.Programs[at], at, on)
		if err != nil {
			return built{}, err
		}
		files[at] = file
	}
	entries := standard()
	for at, file := range m.Files {
		files[at] = filepath.Join(c.root, file)
	}
	for at, file := range files {
		entries = append(entries, entry{path: at, mode: 0o755, from: file})
	}
	sbom, err := materials(m.short(), files)
	if err != nil {
		return built{}, fmt.Errorf("image %q: bill of materials: %w", m.Name, err)
	}
	entries = append(entries, entry{path: "/usr/share/sbom/" + m.short() + ".spdx.json", mode: 0o644, content: sbom})
	img, err := configured(m, on, entries)
	return built{platform: on, image: img, sbom: sbom}, err
}

func configured(m Image, on v1.Platform, entries []entry) (v1.Image, error) {
	l, err := layer(entries)
	if err != nil {
		return nil, fmt.Errorf("image %q: %w", m.Name, err)
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.Append(base, mutate.Addendum{Layer: l, MediaType: types.OCILayer, History: v1.History{CreatedBy: "images"}})
	if err != nil {
		return nil, fmt.Errorf("image %q: %w", m.Name, err)
	}
	return mutate.ConfigFile(img, &v1.ConfigFile{
		OS: on.OS, Architecture: on.Architecture,
		RootFS:  rootfs(img),
		History: []v1.History{{CreatedBy: "images"}},
		Config: v1.Config{
			User: m.User, Entrypoint: m.Entrypoint, WorkingDir: "/",
			Env:    []string{"PATH=/usr/local/bin:/usr/bin:/bin:/", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"},
			Labels: labels(m),
		},
	})
}

func rootfs(img v1.Image) v1.RootFS {
	// An image made by Append has a configuration.
	c, err := img.ConfigFile()
	if err != nil {
		panic(err)
	}
	return c.RootFS
}

func labels(m Image) map[string]string {
	all := map[string]string{
		"org.opencontainers.image.source":   "https://github.com/ambit-mesh/ambit",
		"org.opencontainers.image.licenses": "Apache-2.0",
	}
	if m.Title != "" {
		all["org.opencontainers.image.title"] = m.Title
	}
	if m.Description != "" {
		all["org.opencontainers.image.description"] = m.Description
	}
	return all
}

// index puts the platforms of an image together.
func index(all []built) v1.ImageIndex {
	idx := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, b := range all {
		p := b.platform
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{Add: b.image, Descriptor: v1.Descriptor{Platform: &p}})
	}
	return idx
}
