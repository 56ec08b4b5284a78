package box

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// A process that ended, or another one that got its number, is not taken for the box's.
func TestPid(t *testing.T) {
	b := &Box{Name: "x", Dir: t.TempDir()}
	if _, err := b.Pid(); !errors.Is(err, ErrAbsent) {
		t.Errorf("without a file: %v", err)
	}
	cmd := exec.CommandContext(t.Context(), "sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := b.remember(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if pid, err := b.Pid(); err != nil || pid != cmd.Process.Pid {
		t.Errorf("%d, %v", pid, err)
	}
	at := filepath.Join(b.Dir, "pid")
	text, err := os.ReadFile(at)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at, append(text, '0'), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Pid(); !errors.Is(err, ErrAbsent) {
		t.Errorf("a process started at another time: %v", err)
	}
	if err := os.WriteFile(at, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.Stop(); err != nil { // it is our child: a zombie until waited for
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the process ended by itself")
	}
	if err := b.Stop(); err != nil {
		t.Errorf("stopped twice: %v", err)
	}
}
