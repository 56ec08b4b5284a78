package otlp

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Method is what a Call calls.
const Method = collectorpb.TraceService_Export_FullMethodName

// Call makes a unary gRPC call of Method. Errors that are an answer of the collector
// have a status, as of package status.
type Call func(ctx context.Context, request []byte) (response []byte, err error)

// Pauses between attempts to hand over a batch.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = time.Second
)

// called is a client for whoever has connections of its own.
type called struct{ call Call }

var _ otlptrace.Client = called{}

// Start implements otlptrace.Client.
func (called) Start(context.Context) error { return nil }

// Stop implements otlptrace.Client.
func (called) Stop(context.Context) error { return nil }

// UploadTraces hands over a batch, and tries again until ctx ends.
func (c called) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	request, err := proto.Marshal(&collectorpb.ExportTraceServiceRequest{ResourceSpans: spans})
	if err != nil {
		return err
	}
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		response, err := c.call(ctx, request)
		if err == nil {
			return taken(response)
		}
		if !again(err) {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err // which says more than that time is up
		}
	}
}

// again reports whether a call is worth another attempt: the codes are those of the
// OTLP specification, "OTLP/gRPC Response", and who has not answered may do so yet.
func again(err error) bool {
	s, answered := status.FromError(err)
	if !answered {
		return true
	}
	switch s.Code() {
	case codes.Canceled, codes.DeadlineExceeded, codes.Aborted, codes.OutOfRange, codes.Unavailable, codes.DataLoss:
		return true
	}
	return false
}

// refusedError is a batch of which the collector has not taken all spans.
type refusedError struct {
	spans   int64
	message string
}

func (e *refusedError) Error() string {
	return fmt.Sprintf("%d spans refused: %.200s", e.spans, e.message)
}

var errAnswer = errors.New("the collector's answer cannot be read")

// taken reads what the collector says of a batch.
func taken(response []byte) error {
	var r collectorpb.ExportTraceServiceResponse
	if err := proto.Unmarshal(response, &r); err != nil {
		return errAnswer
	}
	// A message without refused spans is a warning (OTLP specification, "Partial Success").
	if p := r.GetPartialSuccess(); p.GetRejectedSpans() > 0 {
		return &refusedError{p.GetRejectedSpans(), p.GetErrorMessage()}
	}
	return nil
}
