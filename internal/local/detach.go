package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// keeperArg is the argv[0] of a keeper that no terminal waits for.
const keeperArg = "ambit-local-keeper"

// The file descriptors of a detached keeper, after the three standard ones.
const (
	fdOptions = 3 + iota
	fdOutcome
)

func isKeeper() bool { return len(os.Args) == 1 && os.Args[0] == keeperArg }

// StartDetached makes the sandbox of a local mesh with a keeper of its own, and
// returns when the sandbox is up. The mesh in it may not be ready yet.
func StartDetached(o Options) error {
	o, err := o.complete()
	if err != nil {
		return err
	}
	raw, err := json.Marshal(detachedOptions{Options: o, RuntimeDir: o.RuntimeDir})
	if err != nil {
		return err
	}
	optionsR, optionsW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer optionsR.Close()
	outcomeR, outcomeW, err := os.Pipe()
	if err != nil {
		return errors.Join(err, optionsW.Close())
	}
	defer outcomeR.Close()
	cmd := exec.Command(insideProgram())
	cmd.Args = []string{keeperArg}
	cmd.ExtraFiles = []*os.File{optionsR, outcomeW}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	outcomeW.Close()
	if err != nil {
		return errors.Join(fmt.Errorf("start the keeper: %w", err), optionsW.Close())
	}
	// The keeper outlives this process, which does not wait for it.
	defer cmd.Process.Release() //nolint:errcheck // nothing can be done about it
	_, err = optionsW.Write(raw)
	if err = errors.Join(err, optionsW.Close()); err != nil {
		return fmt.Errorf("instruct the keeper: %w", err)
	}
	outcome, err := io.ReadAll(outcomeR)
	switch {
	case err != nil:
		return fmt.Errorf("wait for the keeper: %w", err)
	case string(outcome) == outcomeUp:
		return nil
	case len(outcome) == 0:
		return errors.New("the keeper ended without a word")
	default:
		return errors.New(string(outcome))
	}
}

// outcomeUp cannot be an error message.
const outcomeUp = "\x00up"

// detachedOptions carry the one option that pid 1 has no use for.
type detachedOptions struct {
	Options
	RuntimeDir string `json:"runtimeDir"`
}

// keep is what a detached keeper does.
func keep() int {
	// It may have come from a directory that somebody wants to unmount.
	_ = os.Chdir("/")
	unix.CloseOnExec(fdOutcome)
	outcome := os.NewFile(fdOutcome, "outcome")
	fail := func(err error) int {
		// Nobody else listens.
		_, _ = io.WriteString(outcome, err.Error())
		return 1
	}
	var d detachedOptions
	options := os.NewFile(fdOptions, "options")
	if err := json.NewDecoder(options).Decode(&d); err != nil {
		return fail(fmt.Errorf("read the keeper's options: %w", err))
	}
	options.Close()
	d.Options.RuntimeDir = d.RuntimeDir
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	sb, err := Start(d.Options)
	if err != nil {
		return fail(err)
	}
	_, _ = io.WriteString(outcome, outcomeUp)
	outcome.Close()
	if sb.Wait(ctx) != nil {
		return 1
	}
	return 0
}
