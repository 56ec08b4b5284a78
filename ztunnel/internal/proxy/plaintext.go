package proxy

import (
	"context"
	"fmt"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/netns"
)

// servePlaintext serves a connection to the pod that did not come through a
// tunnel. It has no identity; policy decides whether that is enough.
func (p *Pod) servePlaintext(ctx context.Context, app *netns.Conn) {
	c := &connection{direction: Inbound, start: time.Now(), srcAddr: app.RemoteAddrPort()}
	err := p.plaintextTo(ctx, app, c)
	if cut := c.cutReason(); cut != nil {
		err = cut
	}
	p.ended(app, c, err)
}

func (p *Pod) plaintextTo(ctx context.Context, app *netns.Conn, c *connection) error {
	dst, err := netns.OriginalDst(app)
	if err != nil {
		return fmt.Errorf("where was it going: %w", err)
	}
	c.dstAddr = dst
	if illegalPort(dst.Port()) {
		return fmt.Errorf("port %d is the proxy's own", dst.Port())
	}
	if c.dst, err = p.awaitWorkload(ctx); err != nil {
		return err
	}
	c.src = p.cfg.Store.Workload(c.srcAddr.Addr())
	c.onCut(closing(app))
	if err := p.authorize(c); err != nil {
		return err
	}
	p.cfg.Metrics.plaintextSeen(c)
	up, err := p.dialApp(ctx, c)
	if err != nil {
		return err
	}
	defer up.Close()
	p.established(c)
	return hbone.Relay(app, up, &c.toDst, &c.toSrc)
}
