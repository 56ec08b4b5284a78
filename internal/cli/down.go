package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/internal/local/control"
	"github.com/ambit-mesh/ambit/internal/local/sandbox"
)

func newDown(s Streams, f *localFlags) *cobra.Command {
	var grace time.Duration
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop a local mesh and leave nothing behind",
		Long: "Stops a local mesh and leaves nothing behind: no process, no network, no file. It also removes\n" +
			"what a killed one left. Where there is nothing to stop it says so and succeeds.",
		Example: "  ambit local down\n  ambit local down --name demo --grace 0s",
		Args:    Exactly(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := f.path()
			if err != nil {
				return err
			}
			err = down(cmd.Context(), path, f.name, grace)
			var none *sandbox.NotRunningError
			if errors.As(err, &none) {
				_, err = fmt.Fprintf(s.Out, "local mesh %q is not running\n", f.name)
			}
			return err
		},
	}
	cmd.Flags().DurationVar(&grace, "grace", 3*time.Second, "what programs have to end by themselves")
	return cmd
}

// down ends a local mesh and waits until nothing of it is left.
func down(ctx context.Context, path, name string, grace time.Duration) error {
	err := sandbox.Clean(path, name)
	var running *sandbox.RunningError
	if !errors.As(err, &running) {
		return err
	}
	patience := grace + 30*time.Second
	asked := control.NewClient(path).Call(ctx, control.OpDown, control.DownArgs{Grace: grace}, nil)
	var refused *control.RemoteError
	switch {
	case errors.As(asked, &refused):
		return asked
	case asked != nil:
		// It is just ending, or it hangs.
		patience = 5 * time.Second
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience,
		errors.Join(fmt.Errorf("local mesh %q does not end: kill its process \"ambit-local-init\", and everything ends with it", name), asked))
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for sandbox.Running(path) {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	var none *sandbox.NotRunningError
	if err := sandbox.Clean(path, name); !errors.As(err, &none) {
		return err
	}
	return nil
}
