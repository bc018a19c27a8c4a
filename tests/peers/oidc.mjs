// An identity provider: `node oidc.mjs PORT TOOLS`. `POST /rotate` gives it another key.
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const [port, tools] = process.argv.slice(2);
const library = resolve(tools, 'node_modules/oidc-provider/lib/index.js');
const { Provider } = await import(pathToFileURL(library));
const issuer = `http://127.0.0.1:${port}`;

function provider() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const key = { ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'RS256' };
  return new Provider(issuer, {
    clients: ['operator', 'stranger'].map((client_id) => ({
      client_id,
      client_secret: 'secret',
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
    })),
    jwks: { keys: [key] },
    extraTokenClaims: (_, token) =>
      token.clientId === 'operator' ? { roles: ['crm-operators'] } : undefined,
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => 'urn:tributary',
        getResourceServerInfo: () => ({
          scope: '',
          audience: 'tributary',
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: 'RS256' } },
        }),
      },
    },
  }).callback();
}

let current = provider();
createServer((request, response) => {
  if (request.method === 'POST' && request.url === '/rotate') {
    current = provider();
    response.end();
  } else {
    current(request, response);
  }
}).listen(port, '127.0.0.1', () => console.log('ready'));
