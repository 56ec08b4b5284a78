package telemetry

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// NewAccessLog gives a logger that writes one JSON line for each connection or
// request to w, whatever the level of other logs. Lines gather for a moment, so
// that nobody waits for a disk line by line; stop writes what is left. A nil w
// logs nothing.
func NewAccessLog(w io.Writer) (log *zap.Logger, stop func()) {
	if w == nil {
		return zap.NewNop(), func() {}
	}
	buffered := &zapcore.BufferedWriteSyncer{WS: zapcore.AddSync(w), Size: 64 << 10, FlushInterval: 100 * time.Millisecond}
	enc := zap.NewProductionEncoderConfig()
	enc.TimeKey = "time"
	enc.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	enc.EncodeDuration = zapcore.StringDurationEncoder
	core := zapcore.NewCore(zapcore.NewJSONEncoder(enc), buffered, zapcore.InfoLevel)
	return zap.New(core).Named("access"), func() { _ = buffered.Stop() }
}

// OpenAccessLog opens what the flag --access-log names: stdout, off, or a file.
func OpenAccessLog(where string) (io.Writer, error) {
	switch strings.ToLower(where) {
	case "off":
		return nil, nil
	case "stdout":
		return os.Stdout, nil
	}
	f, err := os.OpenFile(where, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, fmt.Errorf("access log: %w", err)
	}
	return f, nil
}
