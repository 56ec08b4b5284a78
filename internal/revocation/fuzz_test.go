package revocation_test

import (
	"crypto/x509"
	"encoding/pem"
	"testing"

	"github.com/ambit-mesh/ambit/internal/revocation"
	"github.com/ambit-mesh/ambit/internal/testkit"
)

func FuzzLoad(f *testing.F) {
	ca := testkit.NewCA(f)
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: ca.Revoke(tomorrow(), ca.Root)}))
	f.Add([]byte("-----BEGIN X509 CRL-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		lists, err := revocation.Load(text, []*x509.Certificate{ca.Root})
		if err == nil && len(lists) == 0 {
			t.Error("no lists, and no error")
		}
		if err != nil && lists != nil {
			t.Error("lists beside an error")
		}
	})
}
