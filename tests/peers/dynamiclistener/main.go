// The command listeners runs N listeners of the real dynamiclistener over one Secret, as the pods of Longhorn and of
// Rancher's webhook do, and says on standard output, a JSON object a line, what becomes of them.
//
// It ends when its standard input is closed, so that it never outlives who started it.
package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/rancher/dynamiclistener"
	"github.com/rancher/dynamiclistener/server"
	"github.com/rancher/wrangler/v3/pkg/generated/controllers/core"
	"github.com/sirupsen/logrus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

const (
	leaseDuration = 20 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 2 * time.Second
	firstBackoff  = time.Second // of a kubelet that restarts a container; it doubles
	lastBackoff   = 30 * time.Second
)

type options struct {
	namespace, secret, caSecret, lease string
	names, addresses                   []string
	port                               int
}

// event is one line of the output.
type event struct {
	Listener    int    `json:"listener"`
	What        string `json:"what"` // ready, crashed
	Address     string `json:"address,omitempty"`
	Fingerprint string `json:"fingerprint,omitempty"` // SHA-256 of the leaf that it serves
	Error       string `json:"error,omitempty"`
}

var output sync.Mutex

func say(what event) {
	output.Lock()
	defer output.Unlock()
	_ = json.NewEncoder(os.Stdout).Encode(what)
}

func main() {
	kubeconfig := flag.String("kubeconfig", os.Getenv("KUBECONFIG"), "of the cluster")
	opts := options{}
	flag.StringVar(&opts.namespace, "namespace", "default", "of both Secrets")
	flag.StringVar(&opts.secret, "secret", "webhook-tls", "the leaf's Secret")
	flag.StringVar(&opts.caSecret, "ca-secret", "webhook-ca", "the CA's Secret")
	flag.StringVar(&opts.lease, "lease", "", "start one at a time under this Lease")
	flag.IntVar(&opts.port, "port", 9443, "of every listener")
	names := flag.String("names", "", "DNS names of the leaf, with commas between them")
	addresses := flag.String("addresses", "127.0.0.1", "one for each listener, with commas between them")
	flag.Parse()
	opts.names, opts.addresses = strings.Split(*names, ","), strings.Split(*addresses, ",")
	logrus.SetOutput(os.Stderr)

	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	var running sync.WaitGroup
	for number := range opts.addresses {
		running.Add(1)
		go func() {
			defer running.Done()
			keep(ctx, number, rest.CopyConfig(config), opts)
		}()
	}
	running.Wait()
}

// keep starts a listener, again after a pause if it fails, and lets it run until the context ends.
func keep(ctx context.Context, number int, config *rest.Config, opts options) {
	config.UserAgent = fmt.Sprintf("listener-%d", number)
	config.QPS, config.Burst = 50, 100
	for pause := firstBackoff; ctx.Err() == nil; pause = min(2*pause, lastBackoff) {
		err := start(ctx, number, config, opts)
		if err == nil {
			<-ctx.Done()
			return
		}
		say(event{Listener: number, What: "crashed", Error: err.Error()})
		runtime.GC() // closes the socket that the library has left open: a pod's would go with its process
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

func start(ctx context.Context, number int, config *rest.Config, opts options) error {
	if opts.lease == "" {
		return listen(ctx, number, config, opts)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	turn, done := context.WithCancel(ctx)
	defer done()
	result := make(chan error, 1)
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: opts.namespace, Name: opts.lease},
		Client:     client.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: config.UserAgent},
	}
	leaderelection.RunOrDie(turn, leaderelection.LeaderElectionConfig{
		Lock: lock, LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) {
				result <- listen(ctx, number, config, opts)
				done()
			},
			OnStoppedLeading: func() {},
		},
	})
	select {
	case err = <-result:
		return err
	default:
		return fmt.Errorf("lost the Lease %s", opts.lease)
	}
}

// listen returns once the listener serves a certificate. If it fails, its context ends with it, as a pod dies: the
// library goes on writing as long as that lives.
func listen(parent context.Context, number int, config *rest.Config, opts options) error {
	ctx, cancel := context.WithCancel(parent)
	factory, err := core.NewFactoryFromConfigWithOptions(config, &core.FactoryOptions{Namespace: opts.namespace})
	if err != nil {
		cancel()
		return err
	}
	address := net.JoinHostPort(opts.addresses[number], fmt.Sprint(opts.port))
	err = server.ListenAndServe(ctx, opts.port, 0, http.HandlerFunc(answer), &server.ListenOpts{
		Secrets:       factory.Core().V1().Secret(),
		CertNamespace: opts.namespace, CertName: opts.secret,
		CANamespace: opts.namespace, CAName: opts.caSecret,
		BindHost:   opts.addresses[number],
		NoRedirect: true, IgnoreTLSHandshakeError: true,
		TLSListenerConfig: dynamiclistener.Config{
			SANs:     opts.names,
			FilterCN: func(names ...string) []string { return only(opts.names, names) },
		},
	})
	if err != nil {
		cancel()
		return err
	}
	for ctx.Err() == nil {
		if fingerprint := served(address, opts.names[0]); fingerprint != "" {
			say(event{Listener: number, What: "ready", Address: address, Fingerprint: fingerprint})
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	cancel()
	return ctx.Err()
}

func answer(response http.ResponseWriter, _ *http.Request) {
	response.WriteHeader(http.StatusOK)
}

func only(allowed, names []string) []string {
	var kept []string
	for _, name := range names {
		for _, one := range allowed {
			if name == one {
				kept = append(kept, name)
			}
		}
	}
	return kept
}

// served is the SHA-256 of the leaf that a handshake shows, or nothing; whom it verifies under is others' to judge.
func served(address, name string) string {
	connection, err := tls.DialWithDialer(&net.Dialer{Timeout: 2 * time.Second}, "tcp", address,
		&tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err != nil {
		return ""
	}
	defer connection.Close()
	return fmt.Sprintf("%x", sha256.Sum256(connection.ConnectionState().PeerCertificates[0].Raw))
}
