package local

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/ambit-mesh/ambit/internal/local/process"
	"github.com/ambit-mesh/ambit/internal/local/sandbox"
	"github.com/ambit-mesh/ambit/internal/telemetry"
)

// Inside reports whether this process was started by a sandbox for its own
// purposes, does what it was started for and gives the exit code. A main
// function that may run sandboxes calls it before anything else.
func Inside() (code int, inside bool) {
	switch {
	case isKeeper():
		return keep(), true
	case process.IsHelper():
		return process.RunHelper(), true
	case sandbox.IsRemover():
		return sandbox.RunRemover(), true
	case sandbox.IsInit():
		return sandbox.RunInit(supervise), true
	}
	return 0, false
}

// supervise is what pid 1 of a sandbox does.
func supervise(ctx context.Context, in *sandbox.Inside) error {
	var o Options
	if err := json.Unmarshal(in.Orders, &o); err != nil {
		return fmt.Errorf("options: %w", err)
	}
	log, _, err := telemetry.NewLogger(telemetry.LogConfig{Level: o.LogLevel, Format: "json"}, os.Stderr)
	if err != nil {
		return err
	}
	s, err := newSupervisor(o, in, log)
	if err != nil {
		return err
	}
	return s.Run(ctx)
}
