package law

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// page is one Markdown file of the tree.
type page struct {
	path, text string
}

func pages(t *testing.T) []page {
	t.Helper()
	var all []page
	if err := walk(".md", func(p string, text []byte) error {
		all = append(all, page{p, string(text)})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var fence = regexp.MustCompile("(?ms)^ *```([a-z]*)\n(.*?)^ *```")

// blocks gives the fenced blocks of some languages.
func (p page) blocks(languages ...string) []string {
	var all []string
	for _, m := range fence.FindAllStringSubmatch(p.text, -1) {
		if slices.Contains(languages, m[1]) {
			all = append(all, m[2])
		}
	}
	return all
}

var inline = regexp.MustCompile("`((?:make|ambit|bin/ambit) [^`\n]+)`")

// commands gives what the page tells the reader to type, blocks and text alike.
func (p page) commands() []string {
	var all []string
	for _, b := range p.blocks("sh", "bash", "console") {
		for line := range strings.Lines(strings.ReplaceAll(b, "\\\n", " ")) {
			line = strings.TrimPrefix(strings.TrimSpace(line), "$ ")
			line, _, _ = strings.Cut(line, " #")
			if strings.HasPrefix(line, "make") || strings.HasPrefix(line, "ambit ") || strings.HasPrefix(line, "bin/ambit ") {
				all = append(all, strings.TrimSpace(line))
			}
		}
	}
	for _, m := range inline.FindAllStringSubmatch(fence.ReplaceAllString(p.text, ""), -1) {
		all = append(all, m[1])
	}
	return all
}

var quoted = regexp.MustCompile(`"[^"]*"|'[^']*'`)

var target = regexp.MustCompile(`(?m)^([a-z][a-z0-9-]*):.*##`)

// Every target is documented, and every page speaks of targets that exist.
func TestMakeTargets(t *testing.T) {
	makefile := read(t, "Makefile")
	documented := map[string]bool{}
	for _, m := range target.FindAllStringSubmatch(makefile, -1) {
		documented[m[1]] = true
	}
	for _, m := range regexp.MustCompile(`(?m)^([a-z][a-z0-9-]*):`).FindAllStringSubmatch(makefile, -1) {
		if !documented[m[1]] {
			t.Errorf("Makefile: %s has no ## comment, so that make help leaves it out", m[1])
		}
	}
	for _, p := range pages(t) {
		for _, c := range p.commands() {
			words := strings.Fields(quoted.ReplaceAllString(c, "x"))
			if words[0] != "make" {
				continue
			}
			for _, w := range words[1:] {
				if !strings.Contains(w, "=") && !documented[w] {
					t.Errorf("%s: %s: there is no such target", p.path, c)
				}
			}
		}
	}
}

// Every ambit command on a page is one that the program has, with flags that it
// takes. The generated reference says what it has.
func TestCommands(t *testing.T) {
	sections := map[string]string{}
	for s := range strings.SplitSeq(read(t, "docs/reference/cli.md"), "\n## ") {
		name, body, _ := strings.Cut(s, "\n")
		sections[name] = body
	}
	for _, p := range pages(t) {
		if strings.HasPrefix(p.path, "docs/reference/") {
			continue
		}
		for _, c := range p.commands() {
			if words := strings.Fields(c); path.Base(words[0]) == "ambit" {
				checkCommand(t, p.path, words, sections)
			}
		}
	}
}

func checkCommand(t *testing.T, page string, words []string, sections map[string]string) {
	t.Helper()
	name, rest := "ambit", words[1:]
	for len(rest) > 0 {
		if _, ok := sections[name+" "+rest[0]]; !ok {
			break
		}
		name, rest = name+" "+rest[0], rest[1:]
	}
	if strings.Contains(sections[name], "Available Commands:") && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
		t.Errorf("%s: %s: %s has no command %q", page, strings.Join(words, " "), name, rest[0])
		return
	}
	for _, w := range rest {
		if w == "--" {
			return
		}
		flag, _, _ := strings.Cut(w, "=")
		if strings.HasPrefix(flag, "-") && !regexp.MustCompile(`[ ,]`+regexp.QuoteMeta(flag)+`[ ,\n]`).MatchString(sections[name]) {
			t.Errorf("%s: %s: %s has no flag %s", page, strings.Join(words, " "), name, flag)
		}
	}
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
)

func TestLinks(t *testing.T) {
	anchors := map[string][]string{}
	all := pages(t)
	for _, p := range all {
		for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(p.text, ""), -1) {
			anchors[p.path] = append(anchors[p.path], slug(m[1]))
		}
	}
	for _, p := range all {
		for _, m := range link.FindAllStringSubmatch(fence.ReplaceAllString(p.text, ""), -1) {
			to, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(to, "://") || strings.HasPrefix(to, "mailto:") {
				continue
			}
			file := p.path
			if to != "" {
				file = path.Join(path.Dir(p.path), to)
			}
			if _, err := os.Stat(filepath.Join(root, file)); err != nil {
				t.Errorf("%s: link to %s: there is no such file", p.path, m[1])
			} else if anchor != "" && !slices.Contains(anchors[file], anchor) {
				t.Errorf("%s: link to %s: there is no such heading (there are %s)", p.path, m[1], strings.Join(anchors[file], ", "))
			}
		}
	}
}

// slug gives the anchor of a heading.
func slug(h string) string {
	h = strings.ToLower(strings.TrimSpace(h))
	h = regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(h, "")
	return strings.ReplaceAll(h, " ", "-")
}

func TestArchitectureStaysShort(t *testing.T) {
	if n := strings.Count(read(t, "ARCHITECTURE.md"), "\n"); n > 200 {
		t.Errorf("ARCHITECTURE.md has %d lines, more than 200: it is the map, not the land", n)
	}
}

// Each folder of tests says what it proves, how to run it and how long it takes.
func TestTestsExplainThemselves(t *testing.T) {
	entries, err := os.ReadDir(filepath.Join(root, "tests"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if _, err := os.Stat(filepath.Join(root, "tests", e.Name(), "README.md")); err != nil {
			t.Errorf("tests/%s has no README.md: what does it prove, how is it run, how long does it take?", e.Name())
		}
	}
}
