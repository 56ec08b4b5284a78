package reference

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// daemons are the programs that take nothing but flags.
var daemons = []struct{ program, about string }{
	{"ambit-controlplane", "Tells the nodes of a mesh what it consists of, and certifies their workloads."},
	{"ambit-ztunnel", "The node's layer-4 proxy."},
	{"ambit-waypoint", "The layer-7 proxy of the services that are bound to it."},
	{"ambit-nodeagent", "Captures pods of its node and hands them to the ztunnel."},
}

// commandLine renders what the programs say about themselves.
func commandLine(programs string) (string, error) {
	var b strings.Builder
	b.WriteString(notice + "# Command line\n\n")
	b.WriteString("Exit codes of `ambit`: 0 it worked, 1 it failed, 2 it was called wrongly, 3 what was looked at is not well, 4 what was\n" +
		"waited for did not come in time, 5 the cluster cannot be reached or does not know the user; `ambit local exec` gives\n" +
		"that of the program that it ran.\n")
	if err := commands(&b, filepath.Join(programs, "ambit"), "ambit"); err != nil {
		return "", err
	}
	b.WriteString("\n## The mesh's programs\n\nEach flag can also be given in the environment: `--xds-address` is `AMBIT_XDS_ADDRESS`. The flag wins.\n")
	for _, d := range daemons {
		text, err := help(filepath.Join(programs, d.program))
		if err != nil {
			return "", err
		}
		_, flags, _ := strings.Cut(text, "\n") // the first line says "Usage of"
		fmt.Fprintf(&b, "\n### %s\n\n%s\n\n```text\n%s\n```\n", d.program, d.about, strings.TrimRight(flags, "\n"))
	}
	return b.String(), nil
}

// subcommand is a line of the list of commands in a help text.
var subcommand = regexp.MustCompile(`(?m)^  ([a-z-]+) `)

// commands renders a command and those below it.
func commands(b *strings.Builder, program string, path ...string) error {
	text, err := help(program, path[1:]...)
	if err != nil {
		return err
	}
	fmt.Fprintf(b, "\n## %s\n\n```text\n%s\n```\n", strings.Join(path, " "), strings.TrimSpace(text))
	_, list, found := strings.Cut(text, "Available Commands:\n")
	if !found {
		return nil
	}
	list, _, _ = strings.Cut(list, "\n\n")
	for _, m := range subcommand.FindAllStringSubmatch(list, -1) {
		if m[1] == "help" {
			continue
		}
		if err := commands(b, program, append(path[:len(path):len(path)], m[1])...); err != nil {
			return err
		}
	}
	return nil
}

// perUser are defaults that differ between users.
var perUser = regexp.MustCompile(`(--runtime-dir .*) \(default "[^"]*"\)`)

// help asks a program for its help text.
func help(program string, args ...string) (string, error) {
	var out bytes.Buffer
	cmd := exec.Command(program, append(args, "--help")...)
	cmd.Stdout, cmd.Stderr, cmd.Env = &out, &out, []string{"HOME=/"}
	if err := cmd.Run(); err != nil {
		if _, exited := errors.AsType[*exec.ExitError](err); !exited {
			return "", err
		}
	}
	// What it says after the help is that it was asked for help.
	text, _, _ := strings.Cut(out.String(), "\n"+strings.TrimPrefix(filepath.Base(program), "ambit-")+": ")
	text = perUser.ReplaceAllString(text, "$1")
	if !strings.Contains(text, "--") {
		return "", fmt.Errorf("%s --help says nothing about flags:\n%s", strings.Join(append([]string{program}, args...), " "), text)
	}
	return text, nil
}
