// Package link is the broker's side of the controller. It keeps the broker in
// the cluster (registration, heartbeats, controlled shutdown; KAFKA.md 7.6), it
// follows the committed metadata log and turns it into images for the broker,
// and it carries requests that only the active controller may decide.
//
// The one idea: there is one way in. The metadata log is the only source of
// what the broker does; nothing that the controller answers is acted upon
// before it has come back as records. In a combined process the source is the
// local controller's committed log and requests are calls; elsewhere both are
// Kafka's requests over the network. Link does not know the difference.
//
// Concurrency: Run owns two goroutines. The tail reads the log, applies it to
// the image and is the only caller of the Follower. The other sends
// heartbeats. They share the fields under mu.
package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"golang.org/x/sync/errgroup"

	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
)

// Controller answers requests as the active controller, wherever it is.
type Controller interface {
	Do(ctx context.Context, req kmsg.Request) (kmsg.Response, error)
}

// Source is the committed metadata log.
type Source interface {
	// HighWatermark is the offset behind the last committed record, -1 while it
	// is not known (no entry of the leader's own term is committed yet).
	HighWatermark() model.Offset
	// Wait returns when a record at from is committed.
	Wait(ctx context.Context, from model.Offset) error
	// Next applies to img what is committed behind it, at most about max bytes;
	// where the log no longer reaches back that far, it loads the newest
	// snapshot and delta is nil.
	Next(img *image.Image, max int64) (next *image.Image, delta *image.Delta, err error)
}

// Follower is the broker, as seen from here. All calls come from one goroutine.
type Follower interface {
	// SetEpoch comes first, with the epoch of this life's registration, and again
	// before each Apply: the broker may have to register again.
	SetEpoch(model.BrokerEpoch)
	// Load takes the first image, which has the registration in it.
	Load(*image.Image) error
	// Apply takes each image after that, with what changed.
	Apply(*image.Image, *image.Delta)
}

// Config is what a Link is made of.
type Config struct {
	// Registration is sent as it is; link fills in nothing.
	Registration *kmsg.BrokerRegistrationRequest

	Controller Controller
	Source     Source
	Follower   Follower

	Heartbeat       time.Duration // broker.heartbeat.interval.ms
	RegisterTimeout time.Duration // initial.broker.registration.timeout.ms
	Log             *slog.Logger
}

// Link is one broker's connection to its cluster. Make it with New, then Run it.
type Link struct {
	cfg Config

	// loaded is closed when the broker has its partitions open.
	loaded chan struct{}
	// running is closed when the controller has unfenced the broker.
	running chan struct{}
	// serve is closed by Serve: the broker can serve.
	serve     chan struct{}
	serveOnce sync.Once
	// leave is closed by Leave: the broker wants to shut down.
	leave     chan struct{}
	leaveOnce sync.Once
	// left is closed when the controller lets the broker go.
	left    chan struct{}
	mu      sync.Mutex
	epoch   model.BrokerEpoch // of the registration, 0 before
	at      model.Offset      // last offset that the follower has taken
	changed chan struct{}     // closed and replaced when at or epoch moves
}

// New makes a Link that does nothing before Run.
func New(cfg Config) *Link {
	return &Link{
		cfg:     cfg,
		loaded:  make(chan struct{}),
		running: make(chan struct{}),
		serve:   make(chan struct{}),
		leave:   make(chan struct{}),
		left:    make(chan struct{}),
		at:      model.NoOffset,
		changed: make(chan struct{}),
	}
}

// Run keeps the broker in the cluster until ctx ends or something fails for good.
func (l *Link) Run(ctx context.Context) error {
	if err := l.register(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return l.tail(ctx) })
	g.Go(func() error { return l.beat(ctx) })
	return g.Wait()
}

// Loaded is closed when the broker has its partitions open.
func (l *Link) Loaded() <-chan struct{} { return l.loaded }

// Running is closed when the cluster counts on the broker.
func (l *Link) Running() <-chan struct{} { return l.running }

// Serve says that the broker can serve clients, so it may be unfenced.
func (l *Link) Serve() { l.serveOnce.Do(func() { close(l.serve) }) }

// Leave asks the controller to move leaderships off this broker and waits until
// it lets the broker go, or ctx ends.
func (l *Link) Leave(ctx context.Context) error {
	l.leaveOnce.Do(func() { close(l.leave) })
	select {
	case <-l.left:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Do asks the active controller. What it decides reaches the broker through the
// log; Caught waits for that.
func (l *Link) Do(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	return l.cfg.Controller.Do(ctx, req)
}

// Caught waits until the broker has taken all that is committed now, at most
// until ctx ends. A client that was answered "created" finds its topic here.
func (l *Link) Caught(ctx context.Context) error {
	return l.reach(ctx, l.cfg.Source.HighWatermark()-1)
}

// reach waits until the follower has taken the record at offset.
func (l *Link) reach(ctx context.Context, offset model.Offset) error {
	for {
		l.mu.Lock()
		at, changed := l.at, l.changed
		l.mu.Unlock()
		if at >= offset {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("metadata: waiting for offset %d, broker is at %d: %w", offset, at, ctx.Err())
		}
	}
}

func (l *Link) moved(f func()) {
	l.mu.Lock()
	f()
	close(l.changed)
	l.changed = make(chan struct{})
	l.mu.Unlock()
}

// tailBytes is how much of the log is applied between two looks at ctx.
const tailBytes = 4 << 20

// tail follows the committed log. Until the registration is in the image the
// images are only gathered; then the broker is loaded, and from there on it
// gets every step.
func (l *Link) tail(ctx context.Context) error {
	img, loaded := image.Empty(), false
	for {
		if err := l.cfg.Source.Wait(ctx, img.Offset()+1); err != nil {
			return ended(ctx, err)
		}
		next, delta, err := l.cfg.Source.Next(img, tailBytes)
		if err != nil {
			return fmt.Errorf("metadata log behind offset %d: %w", img.Offset(), err)
		}
		if delta == nil {
			delta = image.Diff(img, next)
		}
		img = next
		switch {
		case loaded:
			if epoch := l.registered(); img.Offset() >= model.Offset(epoch) { // it may have registered again
				l.cfg.Follower.SetEpoch(epoch)
			}
			l.cfg.Follower.Apply(img, delta)
		case img.Offset() >= model.Offset(l.registered()):
			if err := l.load(img); err != nil {
				return err
			}
			loaded = true
		default:
			continue
		}
		l.moved(func() { l.at = img.Offset() })
	}
}

// load gives the broker its first image.
func (l *Link) load(img *image.Image) error {
	l.cfg.Follower.SetEpoch(l.registered())
	if err := l.cfg.Follower.Load(img); err != nil {
		return fmt.Errorf("loading the broker: %w", err)
	}
	close(l.loaded)
	return nil
}

func (l *Link) registered() model.BrokerEpoch {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epoch
}

// ended turns an error into nil where it is only the end of ctx.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// register tells the controller that this broker lives, until it agrees.
func (l *Link) register(ctx context.Context) error {
	deadline := time.Now().Add(l.cfg.RegisterTimeout)
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		resp, err := l.cfg.Controller.Do(ctx, l.cfg.Registration)
		if err == nil {
			r := resp.(*kmsg.BrokerRegistrationResponse)
			if err = kerr.ErrorForCode(r.ErrorCode); err == nil {
				l.moved(func() { l.epoch = model.BrokerEpoch(r.BrokerEpoch) })
				return nil
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		if time.Now().After(deadline) || final(err) {
			return fmt.Errorf("registering broker %d with the controller: %w", l.cfg.Registration.BrokerID, err)
		}
		l.cfg.Log.Debug("registration not accepted yet", "error", err)
		if !pause(ctx, wait) {
			return nil
		}
	}
}

// final tells the answers that another attempt cannot change.
func final(err error) bool {
	return errors.Is(err, kerr.InconsistentClusterID) || errors.Is(err, kerr.UnsupportedVersion) || errors.Is(err, kerr.InvalidRegistration)
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
