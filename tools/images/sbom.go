package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"runtime/debug"
	"slices"
	"strings"
)

// bill is a bill of materials in SPDX 2.3 (ISO/IEC 5962), as far as it is used here.
type bill struct {
	Version           string         `json:"spdxVersion"`
	License           string         `json:"dataLicense"`
	ID                string         `json:"SPDXID"`
	Name              string         `json:"name"`
	DocumentNamespace string         `json:"documentNamespace"`
	Creation          creation       `json:"creationInfo"`
	Packages          []material     `json:"packages"`
	Relationships     []relationship `json:"relationships"`
}

type creation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type material struct {
	ID               string      `json:"SPDXID"`
	Name             string      `json:"name"`
	Version          string      `json:"versionInfo,omitempty"`
	Download         string      `json:"downloadLocation"`
	FilesAnalyzed    bool        `json:"filesAnalyzed"`
	LicenseConcluded string      `json:"licenseConcluded"`
	LicenseDeclared  string      `json:"licenseDeclared"`
	Copyright        string      `json:"copyrightText"`
	Checksums        []checksum  `json:"checksums,omitempty"`
	Refs             []reference `json:"externalRefs,omitempty"`
	FileName         string      `json:"packageFileName,omitempty"`
}

type checksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type reference struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type relationship struct {
	From string `json:"spdxElementId"`
	Type string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

// noTime is the creation time of what must not depend on time.
const noTime = "1970-01-01T00:00:00Z"

const document = "SPDXRef-DOCUMENT"

// materials lists what an image's programs are made of, from what the linker wrote into them. Files maps paths in the
// image to the compiled programs; files that are no Go programs are listed as they are.
func materials(image string, files map[string]string) ([]byte, error) {
	b := &bill{Version: "SPDX-2.3", License: "CC0-1.0", ID: document, Name: image, Creation: creation{Created: noTime, Creators: []string{"Tool: ambit-images"}}}
	seen := map[string]bool{}
	all := sha256.New()
	for _, at := range sorted(files) {
		text, err := os.ReadFile(files[at])
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(text)
		all.Write(sum[:])
		info, err := buildinfo.ReadFile(files[at])
		if err != nil {
			info = &debug.BuildInfo{}
		}
		b.program(at, hex.EncodeToString(sum[:]), info, seen)
	}
	// The namespace must be unique for each document (SPDX 2.3, 6.5).
	b.DocumentNamespace = fmt.Sprintf("https://ambit-mesh.io/spdx/%s/%x", path.Base(image), all.Sum(nil))
	return json.MarshalIndent(b, "", "  ")
}

// program adds a program and the modules in it.
func (b *bill) program(at, sum string, info *debug.BuildInfo, seen map[string]bool) {
	id := ref("program", at)
	b.Packages = append(b.Packages, material{
		ID: id, Name: at, Version: info.Main.Version, FileName: at, Download: "NOASSERTION",
		LicenseConcluded: "NOASSERTION", LicenseDeclared: "NOASSERTION", Copyright: "NOASSERTION",
		Checksums: []checksum{{"SHA256", sum}},
	})
	b.Relationships = append(b.Relationships, relationship{document, "DESCRIBES", id})
	modules := slices.Clone(info.Deps)
	if info.GoVersion != "" {
		modules = append(modules, &debug.Module{Path: "stdlib", Version: strings.TrimPrefix(info.GoVersion, "go")})
	}
	for _, m := range modules {
		if m.Replace != nil {
			m = m.Replace
		}
		to := ref("module", m.Path+"-"+m.Version)
		if !seen[to] {
			seen[to] = true
			b.Packages = append(b.Packages, module(to, m))
		}
		b.Relationships = append(b.Relationships, relationship{id, "CONTAINS", to})
	}
}

func module(id string, m *debug.Module) material {
	return material{
		ID: id, Name: m.Path, Version: m.Version, Download: "NOASSERTION",
		LicenseConcluded: "NOASSERTION", LicenseDeclared: "NOASSERTION", Copyright: "NOASSERTION",
		Refs: []reference{{"PACKAGE-MANAGER", "purl", "pkg:golang/" + m.Path + "@" + m.Version}},
	}
}

// ref is an identifier, which has letters, digits, dots and hyphens only.
func ref(kind, of string) string {
	return "SPDXRef-" + kind + "-" + strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
			return r
		}
		return '-'
	}, strings.Trim(of, "/"))
}
