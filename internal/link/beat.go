package link

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/model"
)

// beat sends heartbeats: often while the broker waits to be unfenced or to be
// let go, at the configured interval otherwise.
func (l *Link) beat(ctx context.Context) error {
	var running, leaving bool
	serve, leave := l.serve, l.leave
	for {
		resp, err := l.heartbeat(ctx, serve == nil, leaving)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			l.cfg.Log.Warn("heartbeat failed", "error", err)
		case resp.ErrorCode != 0:
			if err := l.refused(ctx, kerr.ErrorForCode(resp.ErrorCode)); err != nil {
				return err
			}
		case resp.ShouldShutdown:
			close(l.left)
			<-ctx.Done()
			return nil
		case !resp.IsFenced && !running:
			running = true
			close(l.running)
		}
		wait := l.cfg.Heartbeat
		if !running && serve == nil || leaving {
			wait = min(wait, 10*time.Millisecond) // Kafka's pace while catching up
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-serve:
			serve = nil // the next beat wants to be unfenced
			if err := l.reach(ctx, model.Offset(l.registered())); err != nil {
				timer.Stop()
				return nil
			}
		case <-leave:
			leave, leaving = nil, true
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		timer.Stop()
	}
}

func (l *Link) heartbeat(ctx context.Context, unfence, leave bool) (*kmsg.BrokerHeartbeatResponse, error) {
	l.mu.Lock()
	epoch, at := l.epoch, l.at
	l.mu.Unlock()
	req := kmsg.NewPtrBrokerHeartbeatRequest()
	req.BrokerID = l.cfg.Registration.BrokerID
	req.BrokerEpoch = int64(epoch)
	req.CurrentMetadataOffset = int64(at)
	req.WantFence = !unfence
	req.WantShutdown = leave
	resp, err := l.cfg.Controller.Do(ctx, req)
	if err != nil {
		return nil, err
	}
	return resp.(*kmsg.BrokerHeartbeatResponse), nil
}

// refused handles a heartbeat that the controller answered with an error.
func (l *Link) refused(ctx context.Context, code error) error {
	l.cfg.Log.Warn("heartbeat refused", "error", code)
	if errors.Is(code, kerr.StaleBrokerEpoch) || errors.Is(code, kerr.BrokerIDNotRegistered) {
		// Another life registered under this id, or the registration is gone.
		if err := l.register(ctx); err != nil {
			return fmt.Errorf("registering again: %w", err)
		}
	}
	return nil
}
