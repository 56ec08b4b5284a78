package xds

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// Config is what a Server is made of. Zero fields get the defaults given.
type Config struct {
	// StallTimeout is how long a client may neither take nor acknowledge what
	// it is sent; 30 s.
	StallTimeout time.Duration
	// ChunkBytes is about the largest response; 1 MiB.
	ChunkBytes int
	// RequestRate limits requests per second and stream by reading no faster,
	// RequestBurst what may come at once; 500 and 1000.
	RequestRate  float64
	RequestBurst int
	// StreamRate limits new streams per second and node, StreamBurst what may
	// come at once; 5 and 30. StreamsPerNode may be open together; 16.
	StreamRate     float64
	StreamBurst    int
	StreamsPerNode int
	// AbsentFor is for how long a node whose stream has ended is expected to come
	// back; 2 min, which is several times the longest pause of a client that tries.
	AbsentFor time.Duration
	// MaxNames is how many names a stream may subscribe to per type; 200,000.
	MaxNames int
	// MaxTombstones is how many gone names a type remembers for clients that
	// are behind; 65,536. A client further behind starts again.
	MaxTombstones int

	Log     *zap.Logger
	Metrics prometheus.Registerer
}

func (c Config) complete() Config {
	orDefault(&c.StallTimeout, 30*time.Second)
	orDefault(&c.ChunkBytes, 1<<20)
	orDefault(&c.RequestRate, 500)
	orDefault(&c.RequestBurst, 1000)
	orDefault(&c.StreamRate, 5)
	orDefault(&c.StreamBurst, 30)
	orDefault(&c.StreamsPerNode, 16)
	orDefault(&c.AbsentFor, 2*time.Minute)
	orDefault(&c.MaxNames, 200_000)
	orDefault(&c.MaxTombstones, 1<<16)
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return c
}

func orDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
