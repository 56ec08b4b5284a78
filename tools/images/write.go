package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/match"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// refName is the annotation by which tools find an image in a layout.
const refName = "org.opencontainers.image.ref.name"

// writeLayout adds an image to the OCI layout in a folder, in place of one of the same name.
func writeLayout(dir string, tags []name.Tag, idx v1.ImageIndex) error {
	p, err := layout.FromPath(dir)
	if err != nil {
		if p, err = layout.Write(dir, empty.Index); err != nil {
			return fmt.Errorf("OCI layout %s: %w", dir, err)
		}
	}
	for _, t := range tags {
		if err := p.ReplaceIndex(idx, match.Name(t.String()), layout.WithAnnotations(map[string]string{refName: t.String()})); err != nil {
			return fmt.Errorf("OCI layout %s: %s: %w", dir, t, err)
		}
	}
	return nil
}

// writeArchives writes an archive that engines import, and the bill of materials, for each platform.
func writeArchives(dir, short string, tags []name.Tag, all []built) error {
	for _, b := range all {
		base := filepath.Join(dir, short+"-"+b.platform.Architecture)
		refs := map[name.Reference]v1.Image{}
		for _, t := range tags {
			refs[t] = b.image
		}
		if err := tarball.MultiRefWriteToFile(base+".tar.part", refs); err != nil {
			return fmt.Errorf("%s.tar: %w", base, err)
		}
		if err := settle(base + ".tar"); err != nil {
			return err
		}
		if err := os.WriteFile(base+".spdx.json", b.sbom, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// settle puts file.part in the place of a file, so that it is complete or absent. A file that would not change keeps its
// time, by which others know that they have it.
func settle(file string) error {
	old, err := os.ReadFile(file)
	if err == nil {
		fresh, err := os.ReadFile(file + ".part")
		if err != nil {
			return err
		}
		if bytes.Equal(old, fresh) {
			return os.Remove(file + ".part")
		}
	}
	return os.Rename(file+".part", file)
}

// push writes the image to its registry, with the credentials that the user's tools have stored.
func push(ctx context.Context, tags []name.Tag, idx v1.ImageIndex) error {
	for _, t := range tags {
		if err := remote.WriteIndex(t, idx, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
			return fmt.Errorf("push %s: %w", t, err)
		}
	}
	return nil
}
