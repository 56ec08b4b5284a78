package cli

import (
	"os"
	"os/signal"
	"syscall"
)

// forwarded gives the signals that a program run for the user should have.
func forwarded() (<-chan os.Signal, func()) {
	c := make(chan os.Signal, 8)
	signal.Notify(c, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH)
	return c, func() { signal.Stop(c) }
}
