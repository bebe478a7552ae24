package main

import (
	"context"
	"encoding/binary"
	"flag"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/clientcmd"
)

// The smallest cluster DNS that serves a test: A and SRV records of Services and of the pods behind
// headless ones. Every other name does not exist: there is no upstream, nothing leaves the node.
const (
	clusterDomain = "cluster.local"
	serviceZone   = "svc." + clusterDomain
	recordTTL     = 5   // seconds
	udpLimit      = 512 // bytes; a longer answer is cut and asked for again by TCP
)

type zone struct {
	services corelisters.ServiceLister
	slices   discoverylisters.EndpointSliceLister
}

// records are what a name stands for. A name can exist without any.
type records struct {
	addresses []net.IP
	ports     []corev1.ServicePort
}

// query is a name of the zone, taken apart: [_PORT._PROTOCOL. | HOST.]SERVICE.NAMESPACE.svc.cluster.local
type query struct {
	port, protocol, host, service, namespace string
}

func parseQuery(name string) (query, bool) {
	rest, inZone := strings.CutSuffix(strings.ToLower(strings.TrimSuffix(name, ".")), "."+serviceZone)
	if !inZone {
		return query{}, false
	}
	parts := strings.Split(rest, ".")
	var q query
	switch {
	case len(parts) == 4 && strings.HasPrefix(parts[0], "_") && strings.HasPrefix(parts[1], "_"):
		q.port, q.protocol, parts = parts[0][1:], parts[1][1:], parts[2:]
	case len(parts) == 3:
		q.host, parts = parts[0], parts[1:]
	}
	if len(parts) != 2 {
		return query{}, false
	}
	q.service, q.namespace = parts[0], parts[1]
	return q, true
}

// lookup says what a name stands for, and whether it exists at all.
func (z *zone) lookup(name string) (records, bool) {
	q, ok := parseQuery(name)
	if !ok {
		return records{}, false
	}
	service, err := z.services.Services(q.namespace).Get(q.service)
	if err != nil {
		return records{}, false
	}
	var found records
	for _, port := range service.Spec.Ports {
		if q.port == "" || (port.Name == q.port && strings.EqualFold(string(port.Protocol), q.protocol)) {
			found.ports = append(found.ports, port)
		}
	}
	if service.Spec.ClusterIP != corev1.ClusterIPNone {
		found.addresses = []net.IP{net.ParseIP(service.Spec.ClusterIP)}
		return found, q.host == ""
	}
	found.addresses = z.endpoints(service, q)
	return found, len(found.addresses) > 0 || q.host == ""
}

func (z *zone) endpoints(service *corev1.Service, q query) []net.IP {
	selector := labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: q.service})
	slices, err := z.slices.EndpointSlices(q.namespace).List(selector)
	if err != nil {
		return nil
	}
	var addresses []net.IP
	for _, slice := range slices {
		for _, endpoint := range slice.Endpoints {
			ready := endpoint.Conditions.Ready == nil || *endpoint.Conditions.Ready || service.Spec.PublishNotReadyAddresses
			asked := q.host == "" || (endpoint.Hostname != nil && *endpoint.Hostname == q.host)
			if !ready || !asked {
				continue
			}
			for _, address := range endpoint.Addresses {
				addresses = append(addresses, net.ParseIP(address))
			}
		}
	}
	return addresses
}

// answer packs the reply to one message; none is sent to what is not a question. limit 0: any length.
func (z *zone) answer(message []byte, limit int) []byte {
	var parser dnsmessage.Parser
	header, err := parser.Start(message)
	if err != nil || header.Response {
		return nil
	}
	questions, err := parser.AllQuestions()
	if err != nil || len(questions) != 1 {
		return nil
	}
	question := questions[0]
	found, exists := z.lookup(question.Name.String())
	reply := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: header.ID, Response: true, Authoritative: true,
			RecursionDesired: header.RecursionDesired, RecursionAvailable: true,
		},
		Questions: questions,
	}
	if exists {
		reply.Answers = answers(question, found)
	} else {
		reply.RCode = dnsmessage.RCodeNameError
	}
	packed, err := reply.Pack()
	if err == nil && limit > 0 && len(packed) > limit {
		reply.Answers, reply.Truncated = nil, true
		packed, err = reply.Pack()
	}
	if err != nil {
		return nil
	}
	return packed
}

func answers(question dnsmessage.Question, found records) []dnsmessage.Resource {
	header := dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET, TTL: recordTTL}
	var all []dnsmessage.Resource
	switch question.Type {
	case dnsmessage.TypeA:
		for _, address := range found.addresses {
			if v4 := address.To4(); v4 != nil {
				all = append(all, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: [4]byte(v4)}})
			}
		}
	case dnsmessage.TypeSRV:
		target := question.Name.String()
		if strings.HasPrefix(target, "_") { // _PORT._PROTOCOL. go in front of the host's name
			target = strings.SplitN(target, ".", 3)[2]
		}
		name, err := dnsmessage.NewName(target)
		if err != nil {
			return nil
		}
		for _, port := range found.ports {
			body := &dnsmessage.SRVResource{Weight: 100, Port: uint16(port.Port), Target: name}
			all = append(all, dnsmessage.Resource{Header: header, Body: body})
		}
	}
	return all
}

// serveDNS is the sub-command: it answers by UDP and TCP until one of the two fails.
func serveDNS(args []string) error {
	flags := flag.NewFlagSet(dnsName, flag.ExitOnError)
	kubeconfig := flags.String("kubeconfig", "", "credentials to read Services and EndpointSlices")
	listen := flags.String("listen", "127.0.0.1:53", "address for UDP and TCP")
	if err := flags.Parse(args); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	z := &zone{
		services: factory.Core().V1().Services().Lister(),
		slices:   factory.Discovery().V1().EndpointSlices().Lister(),
	}
	forever := context.Background().Done()
	factory.Start(forever)
	factory.WaitForCacheSync(forever)

	packets, err := net.ListenPacket("udp", *listen)
	if err != nil {
		return err
	}
	streams, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	failed := make(chan error, 2)
	go func() { failed <- z.serveUDP(packets) }()
	go func() { failed <- z.serveTCP(streams) }()
	return <-failed
}

func (z *zone) serveUDP(socket net.PacketConn) error {
	buffer := make([]byte, 4096)
	for {
		n, from, err := socket.ReadFrom(buffer)
		if err != nil {
			return err
		}
		if reply := z.answer(buffer[:n], udpLimit); reply != nil {
			_, _ = socket.WriteTo(reply, from) // a lost answer is asked for again
		}
	}
}

func (z *zone) serveTCP(listener net.Listener) error {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go z.serveConnection(connection)
	}
}

func (z *zone) serveConnection(connection net.Conn) {
	defer connection.Close()
	for {
		_ = connection.SetDeadline(time.Now().Add(10 * time.Second))
		var length [2]byte
		if _, err := io.ReadFull(connection, length[:]); err != nil {
			return
		}
		message := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(connection, message); err != nil {
			return
		}
		reply := z.answer(message, 0)
		if reply == nil {
			return
		}
		framed := append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)
		if _, err := connection.Write(framed); err != nil {
			return
		}
	}
}
