package config

import (
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"strings"

	"ottla.dev/ottla/internal/model"
)

// network works out roles, listeners, voters, and checks them against each other.
func (l *loader) network() {
	c := l.c
	c.nodeID = model.NodeID(c.Int(NodeID))
	roles := c.List(ProcessRoles)
	c.isBroker, c.isController = slices.Contains(roles, "broker"), slices.Contains(roles, "controller")
	c.voters, _ = parseVoters(c.List(ControllerQuorumVoters)) // checked with its row

	protocols := l.protocolMap()
	c.listeners = l.listenerList("listeners", c.List(Listeners), protocols)
	if len(c.listeners) < len(c.List(Listeners)) {
		return // what follows from an unreadable one would only confuse
	}
	l.ports(c.listeners)
	l.controllerNames(protocols)
	l.advertise(protocols)
	l.interBroker()
	for _, name := range splitList(c.get("early.start.listeners").text) {
		if !slices.ContainsFunc(c.listeners, func(at Listener) bool { return at.Name == strings.ToUpper(name) }) && !c.isControllerName(strings.ToUpper(name)) {
			l.fail("early.start.listeners", c.get("early.start.listeners").text, "%s is not one of the listeners", name)
		}
	}
	l.quorum()
	l.exposed()
}

// exposed warns of listeners that other machines can reach: whoever does may read,
// change and delete everything, as nobody is asked who they are.
func (l *loader) exposed() {
	for _, at := range l.c.listeners {
		if !loopback(at.Host) {
			l.warn("listeners", "anyone who can reach "+at.String()+" may read, change and delete everything: it does not ask who they are. Use a loopback address, or let a firewall or a private network stand before it", false)
		}
	}
	at := l.c.String(OttlaHTTPListener)
	if host, _, err := net.SplitHostPort(at); err == nil && !loopback(host) {
		l.warn("ottla.http.listener", "anyone who can reach it may see and change everything: it does not ask who they are", false)
	}
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// protocolMap reads listener.security.protocol.map. Where it is not given, controller
// listeners are plain too, unless anything in the file speaks TLS or SASL.
func (l *loader) protocolMap() map[string]string {
	const key = "listener.security.protocol.map"
	out := make(map[string]string)
	text := l.c.String(ListenerSecurityProtocolMap)
	for _, e := range splitList(strings.TrimSpace(text)) {
		name, protocol, ok := strings.Cut(e, ":")
		name, protocol = strings.ToUpper(strings.TrimSpace(name)), strings.ToUpper(strings.TrimSpace(protocol))
		switch {
		case !ok || name == "":
			l.fail(key, text, "%q is not LISTENER:PROTOCOL", e)
		case !slices.Contains(protocols[:], protocol):
			l.fail(key, text, "%q is no security protocol; there are %s", protocol, strings.Join(protocols[:], ", "))
		case out[name] != "":
			l.fail(key, text, "listener %s stands twice", name)
		}
		out[name] = protocol
	}
	if l.c.IsSet(key) {
		return out
	}
	secure := func(s string) bool {
		name, _, _ := strings.Cut(strings.ToUpper(s), "://")
		return name == "SSL" || strings.HasPrefix(name, "SASL_")
	}
	if !slices.ContainsFunc(l.c.List(Listeners), secure) && !slices.ContainsFunc(l.c.List(ControllerListenerNames), secure) {
		for _, name := range l.c.List(ControllerListenerNames) {
			out[strings.ToUpper(name)] = "PLAINTEXT"
		}
	}
	return out
}

// listenerList reads the elements of listeners or advertised.listeners.
func (l *loader) listenerList(key string, elements []string, protocols map[string]string) []Listener {
	var out []Listener
	for _, e := range elements {
		at, err := parseListener(e)
		if err != nil {
			l.fail(key, strings.Join(elements, ","), "%v", err)
			continue
		}
		at.Protocol = protocols[at.Name]
		switch {
		case slices.ContainsFunc(out, func(o Listener) bool { return o.Name == at.Name }):
			l.fail(key, strings.Join(elements, ","), "listener %s stands twice", at.Name)
		case at.Protocol == "":
			l.fail(key, strings.Join(elements, ","), "listener %s has no protocol; name it in listener.security.protocol.map", at.Name)
		case at.Protocol != "PLAINTEXT":
			l.fail(key, strings.Join(elements, ","), "listener %s asks for %s: refused, this node cannot speak TLS nor authenticate clients yet; only PLAINTEXT is possible", at.Name, at.Protocol)
		}
		out = append(out, at)
	}
	return out
}

// ports refuses two listeners on one port, except one on IPv4 and one on IPv6.
func (l *loader) ports(list []Listener) {
	for i, a := range list {
		for _, b := range list[:i] {
			if a.Port == 0 || a.Port != b.Port || families(a.Host, b.Host) {
				continue
			}
			l.fail("listeners", a.String(), "port %d is also the port of %s; each listener needs its own", a.Port, b.Name)
		}
	}
}

// families reports whether one host is an IPv4 and the other an IPv6 address.
func families(a, b string) bool {
	x, errX := netip.ParseAddr(a)
	y, errY := netip.ParseAddr(b)
	return errX == nil && errY == nil && x.Is4() != y.Is4()
}

// controllerNames checks controller.listener.names against roles and listeners.
func (l *loader) controllerNames(protocols map[string]string) {
	c := l.c
	const key = "controller.listener.names"
	names := strings.Join(c.List(ControllerListenerNames), ",")
	here := c.ControllerListeners()
	switch {
	case c.isController && len(here) == 0:
		l.fail(key, names, "the controller role needs one of them in listeners (%s)", names)
	case !c.isController && len(here) > 0:
		l.fail(key, names, "%s is in listeners, but process.roles has no controller", here[0].Name)
	case !c.isBroker && len(here) < len(c.listeners):
		l.fail("listeners", strings.Join(c.List(Listeners), ","), "process.roles has no broker, so only the listeners of controller.listener.names=%s may stand here", names)
	case c.isBroker && len(c.listeners) > 0 && len(here) == len(c.listeners):
		l.fail("listeners", strings.Join(c.List(Listeners), ","), "the broker role needs a listener that is not in controller.listener.names=%s", names)
	}
	for _, n := range c.List(ControllerListenerNames) {
		switch p := protocols[strings.ToUpper(n)]; {
		case p == "":
			l.fail(key, names, "%s has no protocol; name it in listener.security.protocol.map", n)
		case p != "PLAINTEXT" && len(here) == 0: // else listeners says so
			l.fail(key, names, "%s asks for %s: refused, only PLAINTEXT is possible yet", n, p)
		}
	}
}

// advertise works out what the broker tells others, and checks it.
func (l *loader) advertise(protocols map[string]string) {
	c := l.c
	const key = "advertised.listeners"
	given := strings.Join(c.List(AdvertisedListeners), ",")
	if c.IsNull(key) {
		if c.isBroker {
			c.advertised = c.BrokerListeners()
		}
		for _, a := range c.advertised {
			if wildcard(a.Host) && a.Host != "" {
				l.fail("listeners", a.String(), "%s cannot be dialled by others; set advertised.listeners, or leave the host out for this machine's name", a.Host)
			}
		}
		return
	}
	all := l.listenerList(key, c.List(AdvertisedListeners), protocols)
	for _, a := range all {
		if !c.isBroker { // nobody is told
			break
		}
		i := slices.IndexFunc(c.listeners, func(o Listener) bool { return o.Name == a.Name })
		switch {
		case i < 0:
			l.fail(key, given, "%s is not one of the listeners", a.Name)
		case wildcard(a.Host) && a.Host != "":
			l.fail(key, given, "%s stands for all interfaces and cannot be dialled; give a name or an address", a.Host)
		case a.Port == 0 && c.listeners[i].Port != 0:
			l.fail(key, given, "port 0 cannot be dialled; give the port of %s", a.Name)
		}
	}
	if !c.isBroker {
		return
	}
	c.advertised = slices.DeleteFunc(all, func(a Listener) bool { return c.isControllerName(a.Name) })
	if len(c.advertised) == 0 {
		l.fail(key, given, "want at least one listener that is not a controller's")
	}
}

func wildcard(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "" || err == nil && addr.IsUnspecified()
}

// interBroker works out which listener brokers use among themselves.
func (l *loader) interBroker() {
	c := l.c
	name := c.String(InterBrokerListenerName)
	protocol := c.String(SecurityInterBrokerProtocol)
	switch {
	case c.IsSet("inter.broker.listener.name") && c.IsSet("security.inter.broker.protocol"):
		l.fail("inter.broker.listener.name", name, "may not stand beside security.inter.broker.protocol=%s; keep one", protocol)
	case protocol != "PLAINTEXT":
		l.fail("security.inter.broker.protocol", protocol, "refused: only PLAINTEXT is possible yet")
	}
	if name == "" {
		name = protocol
		if !c.IsSet("security.inter.broker.protocol") && len(c.advertised) > 0 && !slices.ContainsFunc(c.advertised, func(a Listener) bool { return a.Name == name }) {
			l.fail("inter.broker.listener.name", "", "no listener is called %s, so it must say which of advertised.listeners brokers use among themselves", name)
			return
		}
	}
	c.interListener = strings.ToUpper(name)
	if c.isBroker && !slices.ContainsFunc(c.advertised, func(a Listener) bool { return a.Name == c.interListener }) {
		l.fail("inter.broker.listener.name", c.interListener, "is not one of advertised.listeners")
	}
}

// quorum checks how the controllers are found.
func (l *loader) quorum() {
	c := l.c
	given := strings.Join(c.List(ControllerQuorumVoters), ",")
	in := slices.ContainsFunc(c.voters, func(v Voter) bool { return v.ID == c.nodeID })
	switch {
	case len(c.voters) > 0 && c.isController && !in:
		l.fail("controller.quorum.voters", given, "process.roles has controller, so node.id=%d must be among the voters", c.nodeID)
	case in && !c.isController:
		l.fail("controller.quorum.voters", given, "node.id=%d is a voter, but process.roles has no controller", c.nodeID)
	case len(c.voters) == 0 && len(c.List(ControllerQuorumBootstrapServers)) == 0 && !c.isController:
		l.fail("controller.quorum.bootstrap.servers", "", "must name a controller (host:port, …), as process.roles has none")
	}
}

// limits checks numbers against each other.
func (l *loader) limits() {
	c := l.c
	l.positive("log.roll.ms", 1)
	l.positive("log.roll.jitter.ms", 0)
	l.retention()
	if v := c.Long(QueuedMaxRequestBytes); v > 0 && v < int64(c.Int(SocketRequestMaxBytes)) {
		l.fail("queued.max.request.bytes", fmt.Sprint(v), "must be at least socket.request.max.bytes=%d, or -1", c.Int(SocketRequestMaxBytes))
	}
	seen := make(map[string]string)
	for _, dir := range c.LogDirs() {
		if other, twice := seen[path.Clean(dir)]; twice {
			l.fail("log.dirs", strings.Join(c.LogDirs(), ","), "%s and %s are the same folder", other, dir)
		}
		seen[path.Clean(dir)] = dir
	}
	if at := c.String(OttlaHTTPListener); at != "" {
		if _, _, err := net.SplitHostPort(at); err != nil {
			l.fail("ottla.http.listener", at, "want host:port, or nothing")
		}
	}
	if c.Int(MaxConnectionsPerIP) == 0 && c.String(MaxConnectionsPerIPOverrides) == "" {
		l.fail("max.connections.per.ip", "0", "would let nobody in; name exceptions in max.connections.per.ip.overrides")
	}
	if beat := c.Int(BrokerHeartbeatIntervalMs); beat >= c.Int(BrokerSessionTimeoutMs) {
		l.warn("broker.heartbeat.interval.ms", fmt.Sprintf("is not below broker.session.timeout.ms=%d: this broker will be fenced again and again", c.Int(BrokerSessionTimeoutMs)), false)
	}
	l.order("replica.fetch.wait.max.ms", "replica.socket.timeout.ms")
	l.order("replica.fetch.wait.max.ms", "replica.lag.time.max.ms")
	l.groups()
}

// positive checks a nullable number against its least value.
func (l *loader) positive(key string, least int64) {
	if v := l.c.get(key); !v.null && v.num < least {
		l.fail(key, v.text, "allowed are %d or more", least)
	}
}

// order checks that one property is not larger than another. Only what was given can be wrong.
func (l *loader) order(small, large string) {
	a, b := l.c.get(small), l.c.get(large)
	if a.num > b.num && (l.c.IsSet(small) || l.c.IsSet(large)) {
		l.fail(small, a.text, "must not exceed %s=%s", large, b.text)
	}
}

// retention: 0 would delete everything at once; Kafka takes it for a mistake.
func (l *loader) retention() {
	for _, key := range []string{"log.retention.ms", "log.retention.minutes", "log.retention.hours"} {
		v := l.c.get(key)
		if v.null {
			continue
		}
		if v.num == 0 {
			l.fail(key, v.text, "allowed are 1 or more, or -1 for no limit")
		}
		return // the others are not looked at: the first that is set wins
	}
}

// parseCounts reads name:count, ….
func parseCounts(s string) (map[string]int, error) {
	out := make(map[string]int)
	for _, e := range splitList(strings.TrimSpace(s)) {
		i := strings.LastIndexByte(e, ':')
		if i <= 0 {
			return nil, fmt.Errorf("%q is not address:count", e)
		}
		n, err := parseInt(strings.TrimSpace(e[i+1:]), 32)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%q: want a count of 0 or more", e)
		}
		out[strings.TrimSpace(e[:i])] = int(n)
	}
	return out, nil
}

// PerIPOverrides gives max.connections.per.ip.overrides: connections allowed, by address.
func (c *Config) PerIPOverrides() map[string]int {
	m, _ := parseCounts(c.String(MaxConnectionsPerIPOverrides)) // checked with its row
	return m
}

// groups checks that defaults of groups lie within their bounds.
func (l *loader) groups() {
	for _, kind := range []string{"consumer", "share", "streams"} {
		for _, what := range []string{"session.timeout.ms", "heartbeat.interval.ms", "assignment.interval.ms"} {
			p := "group." + kind + "."
			l.order(p+"min."+what, p+"max."+what)
			l.order(p+"min."+what, p+what)
			l.order(p+what, p+"max."+what)
		}
		beat, session := l.c.get("group."+kind+".heartbeat.interval.ms"), l.c.get("group."+kind+".session.timeout.ms")
		if beat.num >= session.num {
			l.fail("group."+kind+".heartbeat.interval.ms", beat.text, "must be below group.%s.session.timeout.ms=%s", kind, session.text)
		}
	}
	l.order("group.streams.num.standby.replicas", "group.streams.max.standby.replicas")
	if p := l.c.List(GroupCoordinatorRebalanceProtocols); !slices.Contains(p, "classic") {
		l.fail("group.coordinator.rebalance.protocols", strings.Join(p, ","), "classic cannot be left out")
	}
	for _, what := range []string{"record.lock.duration.ms", "delivery.count.limit", "partition.max.record.locks"} {
		l.order("group.share.min."+what, "group.share."+what)
		l.order("group.share."+what, "group.share.max."+what)
	}
}
