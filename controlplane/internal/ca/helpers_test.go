package ca_test

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"strings"
	"testing"
)

func assertError(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Fatalf("error %v; want one that says %q", err, want)
	}
}

// caExtension is basicConstraints with CA:TRUE.
func caExtension() []pkix.Extension {
	return []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Value: []byte{0x30, 0x03, 0x01, 0x01, 0xff}}}
}
