package local

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/internal/local/control"
)

// journal remembers what happened and tells those who follow.
type journal struct {
	log *zap.Logger

	mu     sync.Mutex
	events []control.Event // guarded by mu
	first  int             // number of events[0]; guarded by mu
	more   chan struct{}   // closed and replaced with each event; guarded by mu
}

// remembered is how many events are kept.
const remembered = 1000

func newJournal(log *zap.Logger) *journal {
	return &journal{log: log, more: make(chan struct{})}
}

func (j *journal) info(format string, args ...any) {
	j.add(control.Event{Level: "info", Message: fmt.Sprintf(format, args...)})
}

func (j *journal) warn(format string, args ...any) {
	j.add(control.Event{Level: "warn", Message: fmt.Sprintf(format, args...)})
}

func (j *journal) add(e control.Event) {
	e.Time = time.Now()
	if e.Level == "warn" {
		j.log.Warn(e.Message)
	} else {
		j.log.Info(e.Message)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events = append(j.events, e)
	if extra := len(j.events) - remembered; extra > 0 {
		j.events = append([]control.Event(nil), j.events[extra:]...)
		j.first += extra
	}
	close(j.more)
	j.more = make(chan struct{})
}

// follow sends all events, those of the past first, until ctx ends or send
// fails.
func (j *journal) follow(ctx context.Context, send func(control.Event) error) error {
	next := 0
	for {
		j.mu.Lock()
		if next < j.first {
			next = j.first
		}
		fresh := j.events[next-j.first:]
		next += len(fresh)
		more := j.more
		j.mu.Unlock()
		for _, e := range fresh {
			if err := send(e); err != nil {
				return err
			}
		}
		if len(fresh) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-more:
		}
	}
}
