package ca

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// refusedError is a request that is not granted.
type refusedError struct {
	code   codes.Code
	reason string // label of the metric
	err    error  // for the caller and the audit log
}

func (r *refusedError) Error() string { return r.err.Error() }
func (r *refusedError) Unwrap() error { return r.err }

// GRPCStatus makes a refusal the status of the call.
func (r *refusedError) GRPCStatus() *status.Status { return status.New(r.code, r.err.Error()) }

func refuse(code codes.Code, reason, format string, args ...any) *refusedError {
	return &refusedError{code: code, reason: reason, err: fmt.Errorf(format, args...)}
}

// refuseCSR maps the errors of parseCSR.
func refuseCSR(err error) *refusedError {
	reason := "csr_malformed"
	switch {
	case errors.Is(err, errCSRKey):
		reason = "csr_key"
	case errors.Is(err, errCSRForeignSAN):
		reason = "csr_foreign_san"
	case errors.Is(err, errCSRAuthority):
		reason = "csr_authority"
	}
	return &refusedError{code: codes.InvalidArgument, reason: reason, err: err}
}
