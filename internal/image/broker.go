package image

import (
	"fmt"
	"slices"

	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
)

// A Broker is a broker's registration. It is immutable.
type Broker struct {
	ID          model.NodeID
	Epoch       model.BrokerEpoch // offset of the registration's record
	Incarnation model.UUID        // drawn by the process at start
	Endpoints   []Endpoint        // listeners, as the broker gave them
	Features    []FeatureRange    // levels that it can work with
	Rack        *string           // nil: none
	Dirs        []model.UUID      // usable log folders
	Cordoned    []model.UUID      // of these, the ones that get no new replicas; nil: the broker does not say

	Fenced               bool // not shown to clients, leads nothing
	InControlledShutdown bool // leaving: gives up leadership, takes none
	MigratingZK          bool // Kafka's leftover from the move off ZooKeeper
}

// A Controller is a controller's registration. It is immutable.
type Controller struct {
	ID               model.NodeID
	Incarnation      model.UUID
	Endpoints        []Endpoint
	Features         []FeatureRange
	ZKMigrationReady bool // Kafka's leftover from the move off ZooKeeper
}

// An Endpoint is one listener of a node.
type Endpoint struct {
	Name, Host string
	Port       uint16
	Protocol   int16 // 0 PLAINTEXT, 1 SSL, 2 SASL_PLAINTEXT, 3 SASL_SSL
}

// A FeatureRange is what a node can do: the levels of one feature.
type FeatureRange struct {
	Name     string
	Min, Max int16
}

// Endpoint returns the listener of a name.
func (b *Broker) Endpoint(name string) (Endpoint, bool) {
	i := slices.IndexFunc(b.Endpoints, func(e Endpoint) bool { return e.Name == name })
	if i < 0 {
		return Endpoint{}, false
	}
	return b.Endpoints[i], true
}

// equal reports whether two registrations are the same in every field: their
// records are.
func (b *Broker) equal(o *Broker) bool {
	sameRack := b.Rack == o.Rack || b.Rack != nil && o.Rack != nil && *b.Rack == *o.Rack
	return b == o || b.ID == o.ID && b.Epoch == o.Epoch && b.Incarnation == o.Incarnation && sameRack &&
		b.Fenced == o.Fenced && b.InControlledShutdown == o.InControlledShutdown && b.MigratingZK == o.MigratingZK &&
		slices.Equal(b.Endpoints, o.Endpoints) && slices.Equal(b.Features, o.Features) &&
		slices.Equal(b.Dirs, o.Dirs) && slices.Equal(b.Cordoned, o.Cordoned) && (b.Cordoned == nil) == (o.Cordoned == nil)
}

func newBroker(r *record.RegisterBrokerRecord) *Broker {
	b := &Broker{
		ID:                   model.NodeID(r.BrokerID),
		Epoch:                model.BrokerEpoch(r.BrokerEpoch),
		Incarnation:          r.IncarnationID,
		Rack:                 r.Rack,
		Fenced:               r.Fenced,
		InControlledShutdown: r.InControlledShutdown,
		MigratingZK:          r.IsMigratingZKBroker,
		Dirs:                 r.LogDirs,
		Cordoned:             r.CordonedLogDirs,
		Endpoints:            make([]Endpoint, len(r.EndPoints)),
		Features:             make([]FeatureRange, len(r.Features)),
	}
	for i, e := range r.EndPoints {
		b.Endpoints[i] = Endpoint{e.Name, e.Host, e.Port, e.SecurityProtocol}
	}
	for i, f := range r.Features {
		b.Features[i] = FeatureRange{f.Name, f.MinSupportedVersion, f.MaxSupportedVersion}
	}
	return b
}

// change is the broker after a BrokerRegistrationChangeRecord.
func (b *Broker) change(r *record.BrokerRegistrationChangeRecord) (*Broker, error) {
	next := *b
	switch r.Fenced {
	case 0:
	case 1, -1:
		next.Fenced = r.Fenced == 1
	default:
		return nil, fmt.Errorf("fenced is %d, want -1, 0 or 1", r.Fenced)
	}
	switch r.InControlledShutdown {
	case 0:
	case 1:
		next.InControlledShutdown = true
	default:
		return nil, fmt.Errorf("inControlledShutdown is %d, want 0 or 1", r.InControlledShutdown)
	}
	if len(r.LogDirs) > 0 {
		next.Dirs = r.LogDirs
	}
	if r.CordonedLogDirs != nil {
		next.Cordoned = r.CordonedLogDirs
	}
	return &next, nil
}

// record is the registration as a snapshot writes it.
func (b *Broker) record() *record.RegisterBrokerRecord {
	r := &record.RegisterBrokerRecord{
		BrokerID:             int32(b.ID),
		IsMigratingZKBroker:  b.MigratingZK,
		IncarnationID:        b.Incarnation,
		BrokerEpoch:          int64(b.Epoch),
		Rack:                 b.Rack,
		Fenced:               b.Fenced,
		InControlledShutdown: b.InControlledShutdown,
		LogDirs:              b.Dirs,
		CordonedLogDirs:      b.Cordoned, // null and empty stay apart, as in Kafka
	}
	for _, e := range b.Endpoints {
		r.EndPoints = append(r.EndPoints, record.BrokerEndpoint{Name: e.Name, Host: e.Host, Port: e.Port, SecurityProtocol: e.Protocol})
	}
	for _, f := range b.Features {
		r.Features = append(r.Features, record.BrokerFeature{Name: f.Name, MinSupportedVersion: f.Min, MaxSupportedVersion: f.Max})
	}
	return r
}

func newController(r *record.RegisterControllerRecord) *Controller {
	c := &Controller{
		ID:               model.NodeID(r.ControllerID),
		Incarnation:      r.IncarnationID,
		ZKMigrationReady: r.ZKMigrationReady,
		Endpoints:        make([]Endpoint, len(r.EndPoints)),
		Features:         make([]FeatureRange, len(r.Features)),
	}
	for i, e := range r.EndPoints {
		c.Endpoints[i] = Endpoint{e.Name, e.Host, e.Port, e.SecurityProtocol}
	}
	for i, f := range r.Features {
		c.Features[i] = FeatureRange{f.Name, f.MinSupportedVersion, f.MaxSupportedVersion}
	}
	return c
}

// record is the registration as a snapshot writes it.
func (c *Controller) record() *record.RegisterControllerRecord {
	r := &record.RegisterControllerRecord{
		ControllerID:     int32(c.ID),
		IncarnationID:    c.Incarnation,
		ZKMigrationReady: c.ZKMigrationReady,
	}
	for _, e := range c.Endpoints {
		r.EndPoints = append(r.EndPoints, record.ControllerEndpoint{Name: e.Name, Host: e.Host, Port: e.Port, SecurityProtocol: e.Protocol})
	}
	for _, f := range c.Features {
		r.Features = append(r.Features, record.ControllerFeature{Name: f.Name, MinSupportedVersion: f.Min, MaxSupportedVersion: f.Max})
	}
	return r
}
