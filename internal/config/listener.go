package config

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"ottla.dev/ottla/internal/model"
)

// Listener is an address that the node listens on or tells others.
type Listener struct {
	Name     string // upper case, unique
	Host     string // "" means all interfaces; IPv6 without brackets
	Port     int    // 0: the system chooses one (never advertised so)
	Protocol string // PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL
}

// String gives NAME://host:port, as in the file.
func (l Listener) String() string {
	return l.Name + "://" + l.Address()
}

// Address gives host:port, for net.Listen and net.Dial.
func (l Listener) Address() string { return net.JoinHostPort(l.Host, strconv.Itoa(l.Port)) }

// Voter is one controller of controller.quorum.voters.
type Voter struct {
	ID   model.NodeID
	Host string
	Port int
}

// protocols are the security protocols of listeners, by Kafka's numbers (KAFKA.md 10.1).
var protocols = [...]string{"PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"}

// ProtocolNumber gives a security protocol's number in registration records.
func ProtocolNumber(protocol string) int16 { return int16(slices.Index(protocols[:], protocol)) }

// NodeID gives node.id.
func (c *Config) NodeID() model.NodeID { return c.nodeID }

// IsBroker reports whether process.roles has broker.
func (c *Config) IsBroker() bool { return c.isBroker }

// IsController reports whether process.roles has controller.
func (c *Config) IsController() bool { return c.isController }

// Listeners gives every listener, in the file's order. The slice is a copy.
func (c *Config) Listeners() []Listener { return slices.Clone(c.listeners) }

// BrokerListeners gives the listeners that serve clients and other brokers.
func (c *Config) BrokerListeners() []Listener {
	return slices.DeleteFunc(c.Listeners(), func(l Listener) bool { return c.isControllerName(l.Name) })
}

// ControllerListeners gives the listeners of the controller; none without that role.
func (c *Config) ControllerListeners() []Listener {
	return slices.DeleteFunc(c.Listeners(), func(l Listener) bool { return !c.isControllerName(l.Name) })
}

// Advertised gives the addresses under which clients and brokers reach this broker. An
// empty host stands for this machine's name, port 0 for the port that the listener of
// the same name got.
func (c *Config) Advertised() []Listener { return slices.Clone(c.advertised) }

// AdvertisedControllers gives the addresses under which others reach this controller
// (KIP-853): from advertised.listeners where they stand there, else its listeners.
func (c *Config) AdvertisedControllers() []Listener {
	out := c.ControllerListeners()
	for _, e := range c.List(AdvertisedListeners) {
		a, err := parseListener(e)
		if i := slices.IndexFunc(out, func(l Listener) bool { return l.Name == a.Name }); err == nil && i >= 0 {
			out[i].Host, out[i].Port = a.Host, a.Port
		}
	}
	return out
}

// InterBroker gives the name of the listener that brokers use among themselves.
func (c *Config) InterBroker() string { return c.interListener }

// Voters gives the static controllers, in the file's order; none where the quorum is dynamic.
func (c *Config) Voters() []Voter { return slices.Clone(c.voters) }

// BootstrapServers gives the addresses (host:port) to find the controllers by.
func (c *Config) BootstrapServers() []string {
	return slices.Clone(c.List(ControllerQuorumBootstrapServers))
}

// LogDirs gives the folders for partitions: log.dirs, else log.dir.
func (c *Config) LogDirs() []string {
	if dirs := c.List(LogDirs); len(dirs) > 0 {
		return slices.Clone(dirs)
	}
	return slices.Clone(c.List(LogDir))
}

// MetadataLogDir gives the folder of the metadata log: metadata.log.dir, else the first of LogDirs.
func (c *Config) MetadataLogDir() string {
	if dir := c.String(MetadataLogDir); dir != "" {
		return dir
	}
	return c.LogDirs()[0]
}

func (c *Config) isControllerName(name string) bool {
	return slices.ContainsFunc(c.List(ControllerListenerNames), func(n string) bool { return strings.ToUpper(n) == name })
}

// parseListener reads NAME://host:port.
func parseListener(s string) (Listener, error) {
	name, rest, ok := strings.Cut(s, "://")
	colon := strings.LastIndexByte(rest, ':')
	if !ok || name == "" || colon < 0 {
		return Listener{}, fmt.Errorf("%s is not NAME://host:port", s)
	}
	host := rest[:colon]
	if h, bracketed := strings.CutPrefix(host, "["); bracketed {
		if host, ok = strings.CutSuffix(h, "]"); !ok {
			return Listener{}, fmt.Errorf("%s: the bracket before %s is not closed", s, h)
		}
	}
	if strings.ContainsFunc(host, func(r rune) bool { return !hostRune(r) }) {
		return Listener{}, fmt.Errorf("%s: %q is not a host name or address", s, host)
	}
	port, err := strconv.ParseUint(rest[colon+1:], 10, 16)
	if err != nil {
		return Listener{}, fmt.Errorf("%s: want a port from 0 to 65535", s)
	}
	return Listener{Name: strings.ToUpper(name), Host: host, Port: int(port)}, nil
}

// hostRune is what Kafka allows in a listener's host.
func hostRune(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-._%:", r)
}

// parseVoters reads id@host:port, each id once.
func parseVoters(list []string) ([]Voter, error) {
	var out []Voter
	for _, e := range list {
		id, addr, ok := strings.Cut(e, "@")
		n, err := strconv.ParseUint(id, 10, 31)
		if !ok || err != nil {
			return nil, fmt.Errorf("%s is not id@host:port", e)
		}
		host, port, err := splitHostPort(addr)
		if err != nil {
			return nil, err
		}
		v := Voter{ID: model.NodeID(n), Host: host, Port: port}
		if slices.ContainsFunc(out, func(o Voter) bool { return o.ID == v.ID }) {
			return nil, fmt.Errorf("voter %d stands twice", v.ID)
		}
		out = append(out, v)
	}
	return out, nil
}
