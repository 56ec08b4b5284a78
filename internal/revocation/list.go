package revocation

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// maxList bounds a list, in bytes: some 200,000 certificates.
const maxList = 8 << 20

// list is what one authority has revoked.
type list struct {
	issuer  string // the name, DER
	next    time.Time
	serials map[string]struct{}
}

// parse reads a list in DER. What it may say beside serial numbers, and that must not
// be disregarded, is refused: it would mean something else than it seems to (RFC 5280
// section 5.2).
func parse(der []byte) (*x509.RevocationList, error) {
	if len(der) > maxList {
		return nil, fmt.Errorf("revocation list of %d bytes: at most %d are possible", len(der), maxList)
	}
	l, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, fmt.Errorf("revocation list: %w", err)
	}
	if id, critical := firstCritical(l.Extensions); critical {
		return nil, fmt.Errorf("revocation list of %s: extension %s is critical and not known; complete lists of one authority are", l.Issuer, id)
	}
	if l.NextUpdate.IsZero() {
		return nil, fmt.Errorf("revocation list of %s: without a next update (RFC 5280 section 5.1.2.5)", l.Issuer)
	}
	for i := range l.RevokedCertificateEntries {
		e := &l.RevokedCertificateEntries[i]
		if id, critical := firstCritical(e.Extensions); critical {
			return nil, fmt.Errorf("revocation list of %s: certificate %s: extension %s is critical and not known", l.Issuer, e.SerialNumber.Text(16), id)
		}
	}
	return l, nil
}

func firstCritical(list []pkix.Extension) (string, bool) {
	for i := range list {
		if list[i].Critical {
			return list[i].Id.String(), true
		}
	}
	return "", false
}

func newList(l *x509.RevocationList) *list {
	out := &list{issuer: string(l.RawIssuer), next: l.NextUpdate, serials: make(map[string]struct{}, len(l.RevokedCertificateEntries))}
	for i := range l.RevokedCertificateEntries {
		out.serials[key(l.RevokedCertificateEntries[i].SerialNumber)] = struct{}{}
	}
	return out
}

func key(serial *big.Int) string { return string(serial.Bytes()) }

// Load reads lists from PEM text and gives them in DER. Each must be signed by one of
// the authorities, and there may be one for each of them.
func Load(text []byte, authorities []*x509.Certificate) ([][]byte, error) {
	begun := bytes.Count(text, []byte("-----BEGIN"))
	var out [][]byte
	seen := make(map[string]bool)
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "X509 CRL" {
			return nil, fmt.Errorf("PEM block %.40q: want X509 CRL", block.Type)
		}
		l, err := parse(block.Bytes)
		if err != nil {
			return nil, err
		}
		if err := signedByOne(l, authorities); err != nil {
			return nil, err
		}
		if seen[string(l.RawIssuer)] {
			return nil, fmt.Errorf("there are two revocation lists of %s: keep the newer", l.Issuer)
		}
		seen[string(l.RawIssuer)] = true
		out = append(out, block.Bytes)
	}
	switch {
	case begun == 0:
		return nil, errors.New("no PEM revocation list")
	case len(out) != begun:
		return nil, fmt.Errorf("PEM: %d of %d blocks are malformed or cut short", begun-len(out), begun)
	}
	return out, nil
}

func signedByOne(l *x509.RevocationList, authorities []*x509.Certificate) error {
	for _, a := range authorities {
		if bytes.Equal(a.RawSubject, l.RawIssuer) && l.CheckSignatureFrom(a) == nil {
			return nil
		}
	}
	return fmt.Errorf("revocation list of %s: is not signed by an authority of this mesh, or that one's key usage does not allow it", l.Issuer)
}
