package xds_test

import (
	"fmt"
	"testing"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/internal/xds"
)

// BenchmarkOneChange is the time from Apply to the last of ten clients'
// acknowledgements. It must not grow with the mesh.
func BenchmarkOneChange(b *testing.B) {
	for _, size := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("workloads=%d", size), func(b *testing.B) {
			h := serve(b, xds.Config{})
			var rs []*compile.Resource
			for i := range size {
				rs = append(rs, pod(fmt.Sprintf("cluster//Pod/shop/cart-%d", i), "1", fmt.Sprintf("10.0.%d.%d", i/256, i%256), "n1", "shop/cart.shop.svc.cluster.local"))
			}
			h.update(rs...)
			for i := range 10 {
				p := h.connect(fmt.Sprintf("n%d", i))
				p.send(wildcard(compile.TypeAddress))
				p.next()
				go func() {
					for {
						select {
						case resp := <-p.got:
							p.ack(resp)
						case <-p.stream.Context().Done():
							return
						}
					}
				}()
			}
			if _, err := h.AckedBy(b.Context(), compile.TypeAddress, h.Version()); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				v := h.update(pod("cluster//Pod/shop/cart-7", fmt.Sprint(i), "10.0.0.7", "n1", "shop/cart.shop.svc.cluster.local"))
				if _, err := h.AckedBy(b.Context(), compile.TypeAddress, v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
