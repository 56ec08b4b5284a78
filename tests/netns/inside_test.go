package netns_test

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// insideEnv makes the test binary run a test from within a pod of a mesh that is
// there already; its value is the inside.
const insideEnv = "AMBIT_TEST_INSIDE"

// inside is what the part of a test that runs in a pod is told.
type inside struct {
	Victim string `json:"victim"` // address of the attacked pod
	Cert   []byte `json:"cert"`   // the mesh's root, PEM
	Key    []byte `json:"key"`    // and its key
}

// insideOf gives what this process was told, nil if it is not in a pod.
func insideOf(t *testing.T) *inside {
	t.Helper()
	text := os.Getenv(insideEnv)
	if text == "" {
		return nil
	}
	var in inside
	if err := json.Unmarshal([]byte(text), &in); err != nil {
		t.Fatal(err)
	}
	return &in
}

// runInside runs a subtest of this test in a pod, and fails if it does.
func (m *mesh) runInside(namespace, pod, subtest string, in *inside) {
	m.t.Helper()
	self, err := os.Executable()
	if err != nil {
		m.t.Fatal(err)
	}
	text, err := json.Marshal(in)
	if err != nil {
		m.t.Fatal(err)
	}
	cmd := m.command(m.t.Context(), "exec", pod, "-n", namespace, "--", "/usr/bin/env", insideEnv+"="+string(text),
		self, "-test.run", "^"+m.t.Name()+"$/^"+subtest+"$", "-test.v", "-test.timeout", "3m")
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+m.t.Name()+"/"+subtest)) {
		m.t.Errorf("%s in %s/%s: %v\n%s", subtest, namespace, pod, err, complaints(out))
	}
}

// complaints leaves out what went well.
func complaints(out []byte) string {
	var b strings.Builder
	for line := range strings.Lines(string(out)) {
		if !strings.Contains(line, "=== RUN") && !strings.Contains(line, "--- PASS") {
			b.WriteString(line)
		}
	}
	return b.String()
}
