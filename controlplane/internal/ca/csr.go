package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/ambit-mesh/ambit/internal/identity"
)

const maxCSR = 16 << 10

// Kinds of CSR problems; each is a label of the refusal metric.
var (
	errCSRMalformed  = errors.New("malformed CSR")
	errCSRKey        = errors.New("CSR key not accepted")
	errCSRForeignSAN = errors.New("CSR asks for a foreign name")
	errCSRAuthority  = errors.New("CSR asks for a CA certificate")
)

var (
	oidSubjectAltName   = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
)

// sanTagURI is the context tag of uniformResourceIdentifier in a GeneralName
// (RFC 5280 section 4.2.1.6).
const sanTagURI = 6

// parseCSR gives the public key of a PEM CSR that may be certified for id. The
// CSR may name id as its URI SAN or have no SAN; any other name is refused, not
// dropped, because who sends it either attacks or will be surprised.
func parseCSR(text string, id identity.ID) (*ecdsa.PublicKey, error) {
	if len(text) > maxCSR {
		return nil, fmt.Errorf("%w: longer than %d bytes", errCSRMalformed, maxCSR)
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil {
		return nil, fmt.Errorf("%w: no PEM block", errCSRMalformed)
	}
	if block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST" {
		return nil, fmt.Errorf("%w: PEM block is %q, want CERTIFICATE REQUEST", errCSRMalformed, clip(block.Type))
	}
	if next, _ := pem.Decode(rest); next != nil {
		return nil, fmt.Errorf("%w: more than one PEM block", errCSRMalformed)
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errCSRMalformed, err)
	}
	pub, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%w: it is %s; make an ECDSA key on curve P-256", errCSRKey, describeKey(csr))
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("%w: not signed by its own key: %w", errCSRMalformed, err)
	}
	return pub, checkRequested(csr, id)
}

// checkRequested refuses a CSR that asks for more than id.
func checkRequested(csr *x509.CertificateRequest, id identity.ID) error {
	for _, ext := range csr.Extensions {
		switch {
		case ext.Id.Equal(oidSubjectAltName):
			if err := checkSAN(ext.Value, id); err != nil {
				return err
			}
		case ext.Id.Equal(oidBasicConstraints):
			var bc struct {
				IsCA       bool `asn1:"optional"`
				MaxPathLen int  `asn1:"optional,default:-1"`
			}
			if _, err := asn1.Unmarshal(ext.Value, &bc); err != nil {
				return fmt.Errorf("%w: basic constraints: %w", errCSRMalformed, err)
			}
			if bc.IsCA {
				return errCSRAuthority
			}
		}
	}
	return nil
}

// checkSAN reads the raw extension, because a parsed CSR leaves out the kinds of
// names that its parser does not know.
func checkSAN(value []byte, id identity.ID) error {
	var seq asn1.RawValue
	if rest, err := asn1.Unmarshal(value, &seq); err != nil || len(rest) > 0 || seq.Tag != asn1.TagSequence || !seq.IsCompound {
		return fmt.Errorf("%w: subject alternative name", errCSRMalformed)
	}
	for rest := seq.Bytes; len(rest) > 0; {
		var name asn1.RawValue
		var err error
		if rest, err = asn1.Unmarshal(rest, &name); err != nil {
			return fmt.Errorf("%w: subject alternative name: %w", errCSRMalformed, err)
		}
		if name.Class != asn1.ClassContextSpecific || name.Tag != sanTagURI || name.IsCompound {
			return fmt.Errorf("%w: a subject alternative name that is no URI; ask for %s or for none", errCSRForeignSAN, id)
		}
		if string(name.Bytes) != id.String() {
			return fmt.Errorf("%w: %q; ask for %s or for none", errCSRForeignSAN, clip(string(name.Bytes)), id)
		}
	}
	return nil
}

func describeKey(csr *x509.CertificateRequest) string {
	if pub, ok := csr.PublicKey.(*ecdsa.PublicKey); ok {
		return "ECDSA on curve " + pub.Params().Name
	}
	return csr.PublicKeyAlgorithm.String()
}

// clip bounds what a caller can make us log.
func clip(s string) string {
	if len(s) > 128 {
		return s[:128] + "..."
	}
	return s
}
