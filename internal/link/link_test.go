package link

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
)

// cluster is a controller, its log and a broker, as far as a Link sees them. Every
// request is a record of the log; the first life is forgotten when the broker is loaded.
type cluster struct {
	end     atomic.Int64 // of the log
	more    chan struct{}
	epoch   atomic.Int64 // as the broker was told
	loaded  atomic.Bool
	applied atomic.Int64
}

func (c *cluster) Do(_ context.Context, req kmsg.Request) (kmsg.Response, error) {
	switch req := req.(type) {
	case *kmsg.BrokerRegistrationRequest:
		resp := kmsg.NewPtrBrokerRegistrationResponse()
		resp.BrokerEpoch = c.end.Add(1) - 1
		c.tell()
		return resp, nil
	case *kmsg.BrokerHeartbeatRequest:
		resp := kmsg.NewPtrBrokerHeartbeatResponse()
		if req.BrokerEpoch == 0 && c.loaded.Load() {
			resp.ErrorCode = kerr.StaleBrokerEpoch.Code
		} else {
			c.end.Add(1) // the log goes on
			c.tell()
		}
		return resp, nil
	}
	return nil, kerr.UnsupportedVersion
}

func (c *cluster) tell() {
	select {
	case c.more <- struct{}{}:
	default:
	}
}

func (c *cluster) HighWatermark() model.Offset { return model.Offset(c.end.Load()) }

func (c *cluster) Wait(ctx context.Context, from model.Offset) error {
	for c.HighWatermark() <= from {
		select {
		case <-c.more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (c *cluster) Next(img *image.Image, _ int64) (*image.Image, *image.Delta, error) {
	return img.Apply(img.Offset()+1, 1, []record.Metadata{record.NewNoOpRecord()})
}

func (c *cluster) SetEpoch(e model.BrokerEpoch)     { c.epoch.Store(int64(e)) }
func (c *cluster) Load(*image.Image) error          { c.loaded.Store(true); return nil }
func (c *cluster) Apply(*image.Image, *image.Delta) { c.applied.Add(1) }

// A broker that must register again knows its new epoch: what it sends with the old
// one is refused.
func TestRegisteringAgainGivesTheBrokerItsNewEpoch(t *testing.T) {
	c := &cluster{more: make(chan struct{}, 1)}
	l := New(Config{
		Registration: kmsg.NewPtrBrokerRegistrationRequest(), Controller: c, Source: c, Follower: c,
		Heartbeat: time.Millisecond, RegisterTimeout: time.Minute, Log: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- l.Run(ctx) }()
	for deadline := time.Now().Add(20 * time.Second); c.epoch.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("epoch %d, the log ends at %d, %d steps", c.epoch.Load(), c.end.Load(), c.applied.Load())
			break
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
