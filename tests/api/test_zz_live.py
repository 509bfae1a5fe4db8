import httpx, time, json
from tests.conftest import LiveApi
def test_live(live_api: LiveApi):
    c=httpx.Client(base_url=live_api.url)
    def q(s, v=None, t=None):
        r=c.post("/graphql", json={"query":s,"variables":v or {}}, headers={"authorization":f"Bearer {t}"} if t else {})
        print(r.status_code, r.text[:600]); return r.json()
    t=q('mutation{signUp(input:{email:"a@b.cd",password:"long enough pass"}){session{token} userErrors{message}}}')["data"]["signUp"]["session"]["token"]
    q('mutation{devFund(input:{amount:"1000",idempotencyKey:"a"}){viewer{balances{available}} userErrors{message}}}',t=t)
    a=q('mutation{adminLogIn(input:{password:"correct horse battery staple"}){session{token} userErrors{message}}}')["data"]["adminLogIn"]["session"]["token"]
    i=q('mutation{assetCreate(input:{symbol:"RAIN",name:"r",description:"d",category:"c",idempotencyKey:"k"}){asset{id} userErrors{message}}}',t=a)["data"]["assetCreate"]["asset"]["id"]
    q('mutation($a:ID!){orderPlace(input:{assetId:$a,side:BUY,amount:"100",clientOrderId:"x"}){order{id status fills{price}} position{shares} asset{supply price{display} stats24h{volume}} viewer{portfolio{cash liquidationValue}} userErrors{message}}}',{"a":i},t)
    q('{assets{nodes{symbol price{display} stats24h{volume trades change}} totalCount}}')
    q('{quote(assetId:"%s",side:BUY,shares:1.5){quote{total}}}'%i)
    q('query($s:Decimal){quote(assetId:"%s",side:BUY,shares:$s){quote{total}}}'%i, {"s":1.5})
    q('{trades(assetId:"%s",first:1,last:1){nodes{seq}}}'%i)
    q('{admin{reconciliation{ok} system{components{name ok detail}}} rateLimit{limit}}',t=a)
    q('mutation($a:ID!){orderPlace(input:{assetId:$a,side:BUY,amount:"100",clientOrderId:"x"}){order{id}}}',{"a":i})
    N=300
    s='mutation($a:ID!,$k:String!){orderPlace(input:{assetId:$a,side:BUY,amount:"0.1",clientOrderId:$k}){order{id status filledShares gross fee} userErrors{code}}}'
    t0=time.perf_counter()
    for n in range(N): c.post("/graphql", json={"query":s,"variables":{"a":i,"k":f"n{n}"}}, headers={"authorization":f"Bearer {t}"}).raise_for_status()
    print("per order ms", (time.perf_counter()-t0)/N*1000)
    assert 0
