package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/internal/local/control"
)

func newLogs(s Streams, f *localFlags) *cobra.Command {
	var t control.Target
	var follow bool
	cmd := &cobra.Command{
		Use:   "logs TARGET",
		Short: "Print the output of a container or of one of the mesh's processes",
		Long: "Prints what a container or one of the mesh's processes has written. TARGET is a pod, deploy/NAME,\n" +
			"sts/NAME, svc/NAME, controlplane, n1/ztunnel, n1/nodeagent, n1/access (the ztunnel's access log) or\n" +
			"supervisor.",
		Example: "  ambit local logs deploy/web -n shop\n  ambit local logs n1/ztunnel -f\n  ambit local logs n1/access",
		Args:    Exactly(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := f.client()
			if err != nil {
				return err
			}
			t.Name = args[0]
			var answer control.LogsAnswer
			if err := client.Call(cmd.Context(), control.OpLogs, t, &answer); err != nil {
				return err
			}
			return copyLog(cmd.Context(), s.Out, answer.Path, follow)
		},
	}
	cmd.Flags().StringVarP(&t.Namespace, "namespace", "n", "", "namespace of the pod")
	cmd.Flags().StringVarP(&t.Container, "container", "c", "", "container; the first by default")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what is written from now on")
	return cmd
}

// copyLog copies a file, and with follow what is appended to it, until ctx ends
// or the file is removed. A file that is not there yet is empty.
func copyLog(ctx context.Context, out io.Writer, path string, follow bool) error {
	f, err := os.OpenFile(path, os.O_RDONLY, 0)
	for err != nil {
		if !os.IsNotExist(err) {
			return fmt.Errorf("log: %w", err)
		}
		if !follow || !pauseFor(ctx) {
			return nil
		}
		f, err = os.Open(path)
	}
	defer f.Close()
	for {
		if _, err := io.Copy(out, f); err != nil {
			return err
		}
		if !follow || !pauseFor(ctx) {
			return nil
		}
		if _, err := os.Stat(path); err != nil {
			return nil // what wrote it is gone
		}
		if err := rewind(f); err != nil {
			return err
		}
	}
}

// rewind goes back to the beginning of a file that was shortened.
func rewind(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	at, err := f.Seek(0, io.SeekCurrent)
	if err == nil && at > info.Size() {
		_, err = f.Seek(0, io.SeekStart)
	}
	return err
}

// pauseFor waits a moment; false when ctx ends.
func pauseFor(ctx context.Context) bool {
	timer := time.NewTimer(100 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
